"""Agents on Slurm: how sbatch is called, what the batch script does at signals, and how states are read."""

import signal
from pathlib import Path

import pytest

from fer_sweep.config.pool_file import SlurmPool, parse_pool
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentCommand, AgentState, Phase
from fer_sweep.pools.slurm import SlurmAgents, sbatch_words
from tests.support.fake_slurm import FakeSlurm
from tests.support.pool_stage import stub, stub_pool
from tests.support.processes import until
from tests.support.stub_agent import calls

USR2, TERM, KILL = signal.SIGUSR2, signal.SIGTERM, signal.SIGKILL
DONE = AgentState(Phase.DONE)


def started(plan: str) -> tuple[SlurmAgents, str]:
    """A pool, and its only agent, which runs by now."""
    pool = stub_pool("slurm")
    assert isinstance(pool, SlurmAgents)
    (agent,) = pool.start(stub(plan), 1)
    until(lambda: bool(calls()))
    return pool, agent


def ended(pool: SlurmAgents, agent: str) -> AgentState:
    until(lambda: pool.states()[agent].has_ended)
    return pool.states()[agent]


def log_of(agent: str) -> str:
    return Path(f"logs/{agent}.log").read_text()


@pytest.mark.parametrize(("number", "starts"), [(USR2, 2), (TERM, 1)])
def test_signals_reach_the_agent_and_only_the_notice_requeues_the_job(
    number: signal.Signals, starts: int, fake_slurm: FakeSlurm
) -> None:
    pool, agent = started("waits,0")
    fake_slurm.signal_script(agent, number)
    assert ended(pool, agent) == DONE
    assert Path("checkpoint").is_file()
    assert len(calls()) == starts
    assert ("queued again" in log_of(agent)) == (starts == 2)


@pytest.mark.parametrize("number", [TERM, KILL])
def test_preempted_job_and_one_of_a_lost_node_run_again_elsewhere(
    number: signal.Signals, fake_slurm: FakeSlurm
) -> None:
    pool, agent = started("waits,0")
    fake_slurm.end_and_requeue(agent, number)
    assert ended(pool, agent) == DONE
    assert len(calls()) == 2
    assert Path("checkpoint").exists() == (number == TERM)
    assert f"agent {agent}, restart 1, on n2" in log_of(agent)


def test_notice_before_the_script_knows_the_agents_number_is_passed_on(
    fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signals_itself = """set -o functrace
        trap '[ "$SLURM_RESTART_COUNT$BASH_COMMAND" != "0child=\\$!" ] || kill -USR2 $$' DEBUG"""
    (tmp_path / "signals_itself.sh").write_text(signals_itself)
    monkeypatch.setenv("BASH_ENV", str(tmp_path / "signals_itself.sh"))
    fake_slurm.program("fersweep", '[ "$SLURM_RESTART_COUNT" = 1 ] || exec sleep 120')
    pool = stub_pool("slurm", command="fersweep")
    (agent,) = pool.start(stub("0"), 1)
    until(lambda: pool.states()[agent].has_ended)
    assert "queued again" in log_of(agent)


@pytest.mark.parametrize(("code", "phase"), [(0, Phase.DONE), (1, Phase.FAILED), (3, Phase.DONE)])
def test_agent_that_ends_by_itself_after_the_notice_is_not_requeued(
    code: int, phase: Phase, fake_slurm: FakeSlurm
) -> None:
    pool, agent = started(f"waits:{code}")
    fake_slurm.signal_script(agent, USR2)
    assert ended(pool, agent).phase is phase
    assert len(calls()) == 1


@pytest.mark.parametrize(("state", "starts"), [("finished", 2), ("running", 3)])
def test_restarted_agent_with_nothing_to_do_waits_once_for_the_lease_of_a_lost_node(
    state: str, starts: int, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", "0.01")
    Path("status").write_text(f'  "state": "{state}"\n')
    pool, agent = started("waits,3")
    fake_slurm.end_and_requeue(agent, KILL)
    assert ended(pool, agent) == DONE
    assert len(calls()) == starts


def test_modules_and_container_precede_the_agent_and_no_shell_reads_the_words(fake_slurm: FakeSlurm) -> None:
    for name in ("module", "apptainer", "fersweep"):
        fake_slurm.program(name, f'echo "{name}: $*"')
    values = {"modules": ["cuda/12.4"], "container": "apptainer exec 'my image.sif'", "command": "fersweep"}
    pool = stub_pool("slurm", **values)
    logs = Path("100% logs").absolute()
    (agent,) = pool.start(AgentCommand("abc", ("agent", "abc", "--gpus=$(id)"), logs), 1)
    until(lambda: pool.states()[agent].has_ended)
    said = (logs / f"{agent}.log").read_text().splitlines()
    assert said[1:] == ["module: load cuda/12.4", "apptainer: exec my image.sif fersweep agent abc --gpus=$(id)"]


def test_every_setting_becomes_an_option_of_sbatch() -> None:
    values = {"partition": "gpu", "account": "lab", "qos": "low", "gres": "shard:2", "cpus": 4, "memory": "8G"}
    limits = {"time": "1:00:00", "at_once": 2, "sbatch": ["--constraint=a100"]}
    command = AgentCommand("abc", ("agent", "abc"), Path("/home/my lab/100%"))
    pool, least = parse_pool({"kind": "slurm", **values, **limits}), parse_pool({"kind": "slurm"})
    assert isinstance(pool, SlurmPool) and isinstance(least, SlurmPool)
    assert set(sbatch_words(pool, command, 5)) >= {
        "--array=0-4%2", "--partition=gpu", "--account=lab", "--qos=low", "--gres=shard:2", "--cpus-per-task=4",
        "--mem=8G", "--time=1:00:00", "--signal=B:USR2@120", "--requeue", "--open-mode=append",
        "--output=/home/my lab/100%%/%A_%a.log", "--constraint=a100",
    }  # fmt: skip
    assert not [word for word in sbatch_words(least, command, 1) if "None" in word]


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
    cancelled, unseen = AgentState(Phase.DONE, "cancelled"), AgentState(Phase.DONE, "Slurm no longer knows how")
    assert pool.states() == {"7_0": cancelled, "7_1": unseen}


def test_no_slurm_and_a_slurm_that_refuses_are_reported(
    fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_slurm.program("sbatch", "echo 'invalid partition specified: nosuch' >&2; exit 1")
    with pytest.raises(PoolError, match="sbatch refuses: invalid partition specified: nosuch") as refused:
        stub_pool("slurm").start(stub("0"), 1)
    assert "sinfo" in str(refused.value.hint)
    fake_slurm.program("sbatch", "echo Hello")
    with pytest.raises(PoolError, match="sbatch answered 'Hello' where a job's number was expected"):
        stub_pool("slurm").start(stub("0"), 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PoolError, match="no sbatch here") as missing:
        stub_pool("slurm").start(stub("0"), 1)
    assert "login node" in str(missing.value.hint)
