"""Agents on Slurm: the call of sbatch, signals to the batch script, and the states that squeue prints."""

import signal
from pathlib import Path

import pytest

from fer_sweep.config.pool_file import SlurmPool
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentCommand, AgentState, Phase, Pool
from fer_sweep.pools.slurm import sbatch_words
from tests.support.fake_slurm import FakeSlurm
from tests.support.pool_stage import stub, stub_pool
from tests.support.processes import until
from tests.support.stub_agent import calls

USR2, TERM, KILL = signal.SIGUSR2, signal.SIGTERM, signal.SIGKILL
DONE = AgentState(Phase.DONE)


def started(given: AgentCommand, **values: object) -> tuple[Pool, str]:
    """A pool, and its only agent."""
    pool = stub_pool("slurm", **values)
    (agent,) = pool.start(given, 1)
    return pool, agent


def ended(pool: Pool, agent: str) -> AgentState:
    until(lambda: pool.states()[agent].has_ended)
    return pool.states()[agent]


def log_of(agent: str) -> str:
    return Path(f"logs/{agent}.log").read_text()


@pytest.mark.parametrize(
    ("how", "number", "plan", "phase", "starts"),
    [
        pytest.param("signal_script", USR2, "waits,0", Phase.DONE, 2, id="the time limit is near"),
        pytest.param("signal_script", TERM, "waits,0", Phase.DONE, 1, id="scancel"),
        pytest.param("end_and_requeue", TERM, "waits,0", Phase.DONE, 2, id="preempted"),
        pytest.param("end_and_requeue", KILL, "waits,0", Phase.DONE, 2, id="its node is lost"),
        pytest.param("signal_script", USR2, "waits:0", Phase.DONE, 1, id="done after the notice"),
        pytest.param("signal_script", USR2, "waits:1", Phase.FAILED, 1, id="failed after the notice"),
        pytest.param("signal_script", USR2, "waits:3", Phase.DONE, 1, id="nothing to do after the notice"),
    ],
)
def test_signals_reach_the_agent_and_it_runs_again_elsewhere_if_it_was_interrupted(
    how: str, number: signal.Signals, plan: str, phase: Phase, starts: int, fake_slurm: FakeSlurm
) -> None:
    pool, agent = started(stub(plan))
    until(lambda: bool(calls()))
    getattr(fake_slurm, how)(agent, number)
    assert ended(pool, agent).phase is phase
    assert len(calls()) == starts
    assert Path("checkpoint").exists() == (number != KILL)
    assert ("requeued" in log_of(agent)) == (number == USR2 and starts == 2)
    assert (f"agent {agent}, restart 1, on n2" in log_of(agent)) == (starts == 2)


def test_modules_and_container_precede_the_agent_and_no_shell_reads_the_words(fake_slurm: FakeSlurm) -> None:
    for name in ("module", "apptainer", "fersweep"):
        fake_slurm.program(name, f'echo "{name}: $*"')
    values = {"modules": ["cuda/12.4"], "container": "apptainer exec 'my image.sif'", "command": "fersweep"}
    logs = Path("100% logs").absolute()
    logs.mkdir()
    pool, agent = started(AgentCommand("abc", ("agent", "abc", "--gpus=$(id)"), logs), **values)
    assert ended(pool, agent) == DONE
    said = (logs / f"{agent}.log").read_text().splitlines()
    assert said[1:] == ["module: load cuda/12.4", "apptainer: exec my image.sif fersweep agent abc --gpus=$(id)"]


def test_every_setting_becomes_an_option_of_sbatch() -> None:
    values = {"partition": "gpu", "account": "lab", "qos": "low", "gres": "shard:2", "cpus": 4, "memory": "8G"}
    limits = {"time": "1:00:00", "at_once": 2, "sbatch": ["--constraint=a100"]}
    command = AgentCommand("abc", ("agent", "abc"), Path("/home/my lab/100%"))
    most, least = (sbatch_words(SlurmPool(kind="slurm", **given), command, 5) for given in (values | limits, {}))
    assert set(most) >= {
        "--array=0-4%2", "--partition=gpu", "--account=lab", "--qos=low", "--gres=shard:2", "--cpus-per-task=4",
        "--mem=8G", "--time=1:00:00", "--signal=B:USR2@120", "--requeue", "--open-mode=append",
        "--output=/home/my lab/100%%/%A_%a.log", "--constraint=a100",
    }  # fmt: skip
    assert "--array=0-4" in least and "None" not in str(least)


@pytest.mark.parametrize(
    ("shown", "phase", "note"),
    [
        ("PENDING||Resources", Phase.WAITING, "Resources"),
        ("PREEMPTED||None", Phase.FAILED, "preempted: see {log}"),
        ("REQUEUED||None", Phase.WAITING, "requeued"),
        ("COMPLETING|n7|None", Phase.RUNNING, "on n7, log {log}"),
        ("OUT_OF_MEMORY||None", Phase.FAILED, "out of memory: see {log}"),
        ("CANCELLED||None", Phase.DONE, "cancelled"),
        ("COMPLETED||None", Phase.DONE, ""),
    ],
)
def test_states_of_squeue_are_read(shown: str, phase: Phase, note: str, fake_slurm: FakeSlurm) -> None:
    fake_slurm.program("sbatch", "echo 7")
    fake_slurm.program("squeue", f"echo '7_0|{shown}'")
    pool = stub_pool("slurm")
    pool.start(stub("0"), 1)
    assert pool.states() == {"7_0": AgentState(phase, note.format(log=Path("logs/7_0.log").absolute()))}


def test_waiting_agent_is_cancelled_and_jobs_that_slurm_forgets_keep_their_end(fake_slurm: FakeSlurm) -> None:
    fake_slurm.program("sbatch", "echo 7")
    fake_slurm.program("squeue", "[ -e cancelled ] && echo '7_0|CANCELLED||None' || echo '7_0|PENDING||Priority'")
    fake_slurm.program("scancel", "echo $* > cancelled")
    pool = stub_pool("slurm")
    assert pool.states() == {}
    pool.start(stub("0"), 2)
    pool.stop("7_0", grace_s=60)
    assert Path("cancelled").read_text() == "--quiet 7_0\n"
    fake_slurm.program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    cancelled, unseen = AgentState(Phase.DONE, "cancelled"), AgentState(Phase.DONE, "Slurm has dropped its record")
    assert pool.states() == {"7_0": cancelled, "7_1": unseen}


@pytest.mark.parametrize(
    ("program", "says", "hint"),
    [
        ("echo 'no partition nosuch' >&2; exit 1", "sbatch failed: no partition nosuch", "`sinfo` shows partitions"),
        ("echo Hello", "sbatch printed 'Hello' instead of a job number", ""),
        ("", "sbatch is not installed", "login node"),
    ],
)
def test_no_slurm_and_a_slurm_that_refuses_are_reported(
    program: str, says: str, hint: str, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_slurm.program("sbatch", program)
    if not program:
        monkeypatch.setenv("PATH", "")
    with pytest.raises(PoolError, match=says) as refused:
        started(stub("0"))
    assert hint in (refused.value.hint or "")
