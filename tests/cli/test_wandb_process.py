"""fersweep as a process, logged in to a W&B server: signals, kills, and what the server is left with."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until, words_of
from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

pytestmark = pytest.mark.usefixtures("one_core", "tiny_data")


def create(epochs: int, *words: str, cap: int = 1) -> str:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {cap}"))
    done = fersweep("create", "sweep.yaml", "--json", *words)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["sweep"])


def only_run(server: StandIn) -> Run:
    (run,) = server.runs.values()
    return run


def trials(sweep: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fersweep("status", sweep, "--json").stdout)["trials"]
    return found


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


def test_a_preempted_agents_run_is_requeued_and_goes_on_from_its_checkpoint(online: StandIn) -> None:
    sweep = create(150)
    folder = Path(f".fersweep/sweeps/{sweep}/trials")
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL) as agent:
        until(lambda: any(path.read_text().count("\n") >= 5 for path in folder.glob("*/history.jsonl")))
        agent.send_signal(signal.SIGUSR2)  # test_process sends the others
    assert agent.returncode == 130
    run = only_run(online)
    assert run.state == "preempted"
    assert online.sweeps[sweep].requeued == [run.id]
    assert (folder / run.id / "last.ckpt").is_file()
    reached = len(epochs(run))
    assert 0 < reached < 150
    again = fersweep("agent", "--gpus", "none", "--json")
    assert again.returncode == 0, again.stderr
    assert f"trial {run.id} (attempt 2)" in again.stderr
    assert epochs(run) == list(range(1, 151))
    assert (run.state, run.exit_code) == ("finished", 0)


def test_a_run_whose_end_fell_into_a_network_cut_is_made_whole_by_its_agent(online: StandIn) -> None:
    sweep = create(100)
    results = Path(f".fersweep/sweeps/{sweep}/trials")
    with subprocess.Popen(
        [*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        online.wait_for(lambda server: "UpsertBucket" in server.operations(), 120)
        until(lambda: any(path.read_text().count("\n") >= 5 for path in results.glob("*/history.jsonl")))
        online.faults.offline()
        until(lambda: any(results.glob("*/result.json")))
        # The run cannot be finished now; the agent gives up waiting for it, and tries again at its end.
        assert agent.stdout is not None
        for line in agent.stdout:
            if "could not finish the run" in line:
                break
        online.faults.online()
        said = agent.stdout.read()
    assert agent.returncode == 0, said
    run = only_run(online)
    assert (run.state, run.exit_code) == ("finished", 0)
    assert epochs(run) == list(range(1, 101))
    assert "not whole" not in said, Path(f".fersweep/sweeps/{sweep}/sync.log").read_text()


def test_what_stays_out_of_reach_is_said_at_the_end_and_left_to_sync(online: StandIn) -> None:
    sweep = create(3, "--search", "optuna", cap=2)
    online.faults.offline()
    agent = fersweep("agent", "--gpus", "none")
    assert agent.returncode == 0, agent.stderr
    assert f"not whole on the W&B server: trial 0, 1; later: fersweep sync {sweep}" in agent.stdout
    assert not online.runs
    online.faults.online()
    assert fersweep("sync").returncode == 0
    assert [run.state for run in online.runs.values()] == ["finished", "finished"]


def test_the_end_that_a_killed_agent_could_not_say_is_said_by_the_next_one(
    online: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", "2")
    sweep = create(3)
    online.faults.hang("file_stream", 60.0, times=100, after=False)  # the end of the run takes as long
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.DEVNULL) as agent:
        until(lambda: [trial["state"] for trial in trials(sweep)] == ["complete"])
        family = {agent.pid} | descendants(agent.pid)
        for pid in family:  # wandb's service would still bring up what it has
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in family))
    online.faults.clear()
    assert only_run(online).state == "running"
    # The server waits for that run's end, and the agent for the server.
    again = fersweep("agent", "--gpus", "none")
    assert again.returncode == 3, again.stderr
    assert (only_run(online).state, epochs(only_run(online))) == ("finished", [1, 2, 3])
    assert online.sweeps[sweep].state == "FINISHED"


def test_an_agent_of_many_slots_takes_no_more_than_its_count(online: StandIn) -> None:
    create(3, cap=20)
    online.faults.hang("Heartbeat", 0.4, times=50)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    agent = fersweep("agent", "--slots", "2", "--count", "1")
    assert agent.returncode == 0, agent.stderr
    assert [run.state for run in online.runs.values()] == ["finished"]


def test_two_ctrl_cs_checkpoint_and_the_server_hands_the_run_out_again(online: StandIn) -> None:
    sweep = create(5000)
    folder = Path(f".fersweep/sweeps/{sweep}/trials")
    with subprocess.Popen([*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.PIPE, text=True) as agent:
        until(lambda: any(path.read_text().count("\n") >= 3 for path in folder.glob("*/history.jsonl")))
        agent.send_signal(signal.SIGINT)
        assert agent.stdout is not None
        for line in agent.stdout:
            if "no new trials" in line:
                agent.send_signal(signal.SIGINT)
    assert agent.returncode == 130
    run = only_run(online)
    assert run.state == "preempted"
    assert online.sweeps[sweep].requeued == [run.id]


def test_a_run_that_the_server_refused_is_brought_up_all_the_same(online: StandIn) -> None:
    sweep = create(3)
    online.faults.fail("file_stream", status=404)  # wandb drops the run without a word
    agent = fersweep("agent", "--gpus", "none")
    assert agent.returncode == 0, agent.stderr
    run = only_run(online)
    assert (run.state, epochs(run)) == ("finished", [1, 2, 3])
    assert online.sweeps[sweep].state == "FINISHED"


@pytest.mark.parametrize("then", ["goes on", "is killed", "stays paused"])
def test_a_paused_wandb_service_holds_up_nobody_and_loses_no_run(online: StandIn, then: str) -> None:
    create(40, cap=3)
    impatient = "import fer_sweep.tracking as t; t.FINISH_S = 2.0; from fer_sweep.cli import main; main()"
    words = [COMMAND[0], "-c", impatient, "agent", "--gpus", "none"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as agent:
        assert agent.stdout is not None
        next(line for line in agent.stdout if line.startswith("cpu0: trial"))  # its run has begun
        (service,) = (pid for pid in descendants(agent.pid) if "wandb-core" in words_of(pid))
        os.kill(service, signal.SIGSTOP)
        try:
            # The first trial ends and the second one begins without it.
            heard = next(line for line in agent.stdout if "service process is paused" in line)
            if then != "stays paused":
                os.kill(service, signal.SIGCONT if then == "goes on" else signal.SIGKILL)
            said = heard + agent.stdout.read()
            assert agent.wait(timeout=120) == 0, said
            assert not alive(service)
        finally:
            if alive(service):
                os.kill(service, signal.SIGKILL)
            agent.kill()
    assert "Traceback" not in said
    assert "not whole" not in said, said
    assert [run.state for run in online.runs.values()] == ["finished"] * 3, said
    assert [epochs(run) for run in online.runs.values()] == [list(range(1, 41))] * 3


def test_a_killed_wandb_service_loses_no_run(online: StandIn) -> None:
    create(60, cap=2)
    with subprocess.Popen(
        [*COMMAND, "agent", "--gpus", "none"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        assert agent.stdout is not None
        for line in agent.stdout:
            if "epoch 5/" in line:
                (service,) = (pid for pid in descendants(agent.pid) if "wandb-core" in words_of(pid))
                os.kill(service, signal.SIGKILL)
                break
        said = agent.stdout.read()
    assert agent.returncode == 0, said
    assert "Traceback" not in said
    assert [run.state for run in online.runs.values()] == ["finished", "finished"], said
    assert [epochs(run) for run in online.runs.values()] == [list(range(1, 61))] * 2
