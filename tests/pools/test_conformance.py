"""What every pool does, whatever starts its agents."""

from pathlib import Path

import pytest

from fer_sweep.config.pool_file import parse_pool
from fer_sweep.pools import Phase, Pool
from fer_sweep.pools.local import LocalAgents
from fer_sweep.pools.ray_cluster import RayAgents
from fer_sweep.pools.slurm import SlurmAgents
from tests.support.pool_stage import command, make, trials_of
from tests.support.processes import until

pytestmark = pytest.mark.usefixtures("tiny_data", "one_core")


@pytest.fixture(params=["local", "slurm", "ray"])
def pool(request: pytest.FixtureRequest) -> Pool:
    if request.param == "local":
        return LocalAgents()
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
        return RayAgents(parse_pool({"kind": "ray", "address": "auto", "gpus": 0.5}))  # type: ignore[arg-type]
    request.getfixturevalue("cluster")
    return SlurmAgents(parse_pool({"kind": "slurm", "gres": "gpu:1", "cpus": 1}))  # type: ignore[arg-type]


def phases(pool: Pool) -> set[Phase]:
    return {state.phase for state in pool.states().values()}


def test_agents_do_a_sweep_and_end(pool: Pool) -> None:
    sweep = make(epochs=1, trials=2)
    ids = pool.start(command(sweep), 2)
    assert len(set(ids)) == 2 and set(pool.states()) == set(ids)
    until(lambda: all(state.has_ended for state in pool.states().values()))
    assert phases(pool) == {Phase.DONE}
    assert trials_of(sweep) == ["complete"] * 2
    logs = sorted(Path("logs").iterdir())
    assert len(logs) == 2
    for trial in range(2):  # which agent trained it can be told from what it printed
        assert sum(f"trial {trial}:" in log.read_text() for log in logs) == 1


def test_one_that_is_stopped_writes_a_checkpoint_and_hands_its_trial_back(pool: Pool) -> None:
    sweep = make(epochs=5000)
    folder = Path(".fersweep/sweeps") / sweep / "trials" / "0"
    (agent,) = pool.start(command(sweep), 1)
    until(lambda: (folder / "history.jsonl").is_file())
    assert phases(pool) == {Phase.RUNNING}
    pool.stop(agent, grace_s=60)
    assert pool.states()[agent].phase is Phase.DONE
    assert (folder / "last.ckpt").is_file()
    assert trials_of(sweep) == ["preempted"]
    pool.stop(agent, grace_s=60)  # one that has ended has nothing to do


def test_one_that_fails_says_where_to_look(pool: Pool) -> None:
    (agent,) = pool.start(command("nosuchid"), 1)
    until(lambda: pool.states()[agent].has_ended)
    state = pool.states()[agent]
    assert state.phase is Phase.FAILED
    log = Path(state.note.rpartition("see ")[2])
    assert "no sweep 'nosuchid'" in log.read_text()
