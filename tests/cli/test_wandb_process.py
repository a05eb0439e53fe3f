"""Agents as processes with real trials and stock wandb, on a W&B server: kills, network cuts, and a paused service."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until, words_of
from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("one_core", "tiny_data")]
IMPATIENT = "import fer_sweep.wandb_client.tracking as t; t.FINISH_S = 2.0; from fer_sweep.cli import main; main()"
"""fersweep whose agents give a run two seconds to be sent at its end."""


def create(epochs: int, cap: int = 1) -> str:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {cap}"))
    done = fersweep("create", "sweep.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["sweep"])


@contextmanager
def agent() -> Iterator["subprocess.Popen[str]"]:
    words = [COMMAND[0], "-c", IMPATIENT, "agent", "--gpus", "none"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        yield process


def line_with(text: str, process: "subprocess.Popen[str]") -> str:
    """What the agent says up to the line that holds this text."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


def rest(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait(120) == 0, said
    return said


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


def trained(sweep: str, count: int) -> None:
    """Return once a trial has trained so many epochs."""
    histories = Path(f".fersweep/sweeps/{sweep}/trials")
    until(lambda: any(path.read_text().count("\n") >= count for path in histories.glob("*/history.jsonl")))


def test_a_killed_agents_run_is_resumed_by_the_next_agent(online: StandIn) -> None:
    sweep = create(150)
    with agent() as first:
        trained(sweep, 20)
        family = {first.pid} | descendants(first.pid)
        os.killpg(first.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in family))
    with agent() as second:
        rest(second)
    (run,) = online.runs.values()
    assert (run.state, run.exit_code) == ("finished", 0)
    assert epochs(run) == list(range(1, 151)), "no gap and no repeat"
    assert online.sweeps[sweep].state == "FINISHED"


def test_a_run_whose_end_falls_into_a_network_cut_is_made_whole_by_its_agent(online: StandIn) -> None:
    sweep = create(100)
    with agent() as process:
        trained(sweep, 5)
        online.faults.offline()
        said = line_with("could not finish the run", process)
        online.faults.online()
        said += rest(process)
    (run,) = online.runs.values()
    assert (run.state, run.exit_code) == ("finished", 0), online.dump()
    assert epochs(run) == list(range(1, 101))
    assert "not whole" not in said, said


def test_a_run_that_the_server_refused_is_synced_all_the_same(online: StandIn) -> None:
    sweep = create(3)
    online.faults.fail("file_stream", status=404)  # wandb drops the run and calls it finished
    with agent() as process:
        rest(process)
    (run,) = online.runs.values()
    assert (run.state, epochs(run)) == ("finished", [1, 2, 3])
    assert online.sweeps[sweep].state == "FINISHED"


def test_a_paused_wandb_service_holds_up_no_trial_and_loses_no_run(online: StandIn) -> None:
    create(40, cap=3)
    with agent() as process:
        line_with("cpu0: trial", process)  # its run has begun
        (service,) = (pid for pid in descendants(process.pid) if "wandb-core" in words_of(pid))
        os.kill(service, signal.SIGSTOP)
        try:
            said = rest(process)
            assert not alive(service)
        finally:
            if alive(service):
                os.kill(service, signal.SIGKILL)
    assert "service process is paused" in said
    assert "Traceback" not in said and "not whole" not in said, said
    assert [(run.state, epochs(run)) for run in online.runs.values()] == [("finished", list(range(1, 41)))] * 3
