"""What every pool does with agents: on this host, a fake Slurm and a scripted Ray; on real clusters if asked to."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_sweep.cli.agent import open_pool
from fer_sweep.config.pool_file import load_pool_file
from fer_sweep.pools import AgentState, Phase, Pool
from fer_sweep.pools.ray_cluster import RayAgents
from tests.support.documentation import REPOSITORY
from tests.support.pool_stage import command, stub, stub_pool
from tests.support.processes import until
from tests.support.stub_agent import calls

SYSTEMS = {"fake slurm": "fake_slurm", "slurm": "real_slurm", "ray": "real_ray"}
"""The fixtures that pools need."""
REAL = [pytest.param(kind, marks=pytest.mark.cluster) for kind in ("slurm", "ray")]


@pytest.fixture(params=["local", "fake slurm", "scripted ray", *REAL])
def pool(request: pytest.FixtureRequest) -> Pool:
    if request.param in SYSTEMS:
        request.getfixturevalue(SYSTEMS[request.param])
    return stub_pool(request.param)


def test_agents_get_the_command_its_environment_and_a_log_each_and_end_by_their_exit_codes(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, own_folders: Path
) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.setenv("EDITOR", "vi")
    on_ray = isinstance(pool, RayAgents)
    ids = pool.start(stub("0,1,3"), 3)
    assert len(set(ids)) == 3 and set(pool.states()) == set(ids)
    until(lambda: all(state.has_ended for state in pool.states().values()))
    *done, failed = sorted(pool.states().values(), key=lambda state: state.phase)
    assert done == [AgentState(Phase.DONE)] * 2  # 3 says that there was nothing to do
    assert failed.phase is Phase.FAILED
    logs = list(Path("logs").iterdir())
    assert len(logs) == 3 and all("the agent's own words" in log.read_text() for log in logs)
    assert Path(failed.note.rpartition("see ")[2]) in [log.absolute() for log in logs]
    for given in calls():
        assert given["words"] == ["agent", "abc", "0,1,3"]
        assert given["folder"] == str(own_folders)
        assert given["FERSWEEP_HOME"] == str(own_folders / ".fersweep")
        assert given["PGPASSWORD"] == "secret"
        assert given["EDITOR"] == (None if on_ray else "vi")  # on Ray it is the node's
        assert (given["CUDA_VISIBLE_DEVICES"] in ("0", "1"), given["FERSWEEP_CORES"] == "1") == (on_ray, on_ray)


@pytest.mark.parametrize(("plan", "grace_s", "writes_checkpoint"), [("waits", 60.0, True), ("hangs", 0.0, False)])
def test_stopped_agent_may_write_a_checkpoint_until_its_grace_is_over(
    plan: str, grace_s: float, writes_checkpoint: bool, pool: Pool
) -> None:
    (agent,) = pool.start(stub(plan), 1)
    until(lambda: pool.states()[agent].phase is Phase.RUNNING and bool(calls()))
    pool.stop(agent, grace_s=grace_s)
    assert pool.states()[agent].has_ended
    assert Path("checkpoint").exists() == writes_checkpoint
    pool.stop(agent, grace_s=grace_s)  # does nothing


@pytest.mark.parametrize("kind", ["local", "scripted ray", pytest.param("ray", marks=pytest.mark.cluster)])
def test_agents_checkpoint_when_what_started_them_is_killed(kind: str, request: pytest.FixtureRequest) -> None:
    if kind in SYSTEMS:
        request.getfixturevalue(SYSTEMS[kind])
    with subprocess.Popen([sys.executable, "-m", "tests.support.pool_stage", kind]) as starter:
        until(lambda: bool(calls()))
        starter.send_signal(signal.SIGKILL)
    until(Path("checkpoint").exists)


def test_agent_of_the_shipped_local_file_is_fersweep_itself() -> None:
    pool = open_pool(load_pool_file(REPOSITORY / "agents" / "local.yaml"))
    (agent,) = pool.start(command("nosuchid"), 1)
    until(lambda: pool.states()[agent].phase is Phase.FAILED)
    assert "no sweep 'nosuchid'" in Path(pool.states()[agent].note.rpartition("see ")[2]).read_text()
