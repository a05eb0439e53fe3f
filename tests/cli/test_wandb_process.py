"""fersweep as a process, logged in to a W&B server: signals, kills, and what the server is left with."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import COMMAND, alive, descendants, fersweep, until
from tests.standin.server import StandIn
from tests.standin.state import Run

pytestmark = pytest.mark.usefixtures("one_core", "tiny_data")

SWEEP = """\
method: random
metric: {name: best_val_acc, goal: maximize}
run_cap: 1
parameters:
  model: {value: simple_cnn}
  data: {value: tiny}
  epochs: {value: EPOCHS}
  channels: {value: 4}
  hidden: {value: 8}
  batch_size: {value: 16}
  lr: {min: 0.001, max: 0.01}
"""


def create(epochs: int, *words: str) -> str:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", str(epochs)))
    done = fersweep("create", "sweep.yaml", "--json", *words)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["sweep"])


def only_run(server: StandIn) -> Run:
    (run,) = server.runs.values()
    return run


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


def test_a_killed_agents_run_is_gone_on_with_by_the_next_one(online: StandIn) -> None:
    sweep = create(150)
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL, process_group=0) as agent:
        history = Path(f".fersweep/sweeps/{sweep}/trials")
        until(lambda: any(path.read_text().count("\n") >= 20 for path in history.glob("*/history.jsonl")))
        family = {agent.pid} | descendants(agent.pid)
        os.killpg(agent.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in family))
    again = fersweep("agent", "--gpus", "none")
    assert again.returncode == 0, again.stderr
    run = only_run(online)
    assert (run.state, run.exit_code) == ("finished", 0)
    assert epochs(run) == list(range(1, 151)), "no gap and no repeat"
    assert online.sweeps[sweep].state == "FINISHED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_preempted_agents_run_is_requeued_and_goes_on_from_its_checkpoint(
    online: StandIn, number: signal.Signals
) -> None:
    sweep = create(300)
    folder = Path(f".fersweep/sweeps/{sweep}/trials")
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL) as agent:
        until(lambda: any(path.read_text().count("\n") >= 5 for path in folder.glob("*/history.jsonl")))
        agent.send_signal(number)
    assert agent.returncode == 130
    run = only_run(online)
    assert run.state == "preempted"
    assert online.sweeps[sweep].requeued == [run.id]
    assert (folder / run.id / "last.ckpt").is_file()
    reached = len(epochs(run))
    assert 0 < reached < 300
    again = fersweep("agent", "--gpus", "none", "--json")
    assert again.returncode == 0, again.stderr
    assert f"trial {run.id} (attempt 2)" in again.stderr
    assert epochs(run) == list(range(1, 301))
    assert (run.state, run.exit_code) == ("finished", 0)
