"""Agents on a real Slurm and a real Ray: lost nodes, the time limit, and the commands of docs/clusters.md."""

import os
import re
import shutil
from pathlib import Path

import pytest

from fer_sweep.config.pool_file import RayPool, SlurmPool
from fer_sweep.pools import Phase
from fer_sweep.pools.ray_cluster import RayAgents
from fer_sweep.pools.slurm import SlurmAgents
from tests.support import ray_nodes, slurm
from tests.support.documentation import REPOSITORY
from tests.support.pool_stage import command, follow_section, history, make, trials_of
from tests.support.processes import alive, until, words_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("tiny_data", "one_core")]

EPOCHS = 5_000
"""More than any machine trains while a test looks on."""


def log_of(name: str) -> str:
    log = Path("logs") / f"{name}.log"
    return log.read_text() if log.is_file() else ""


def test_slurm_job_near_its_time_limit_and_one_of_a_lost_node_resume_from_their_checkpoints(
    real_slurm: slurm.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", "10")  # shorter than a requeued job waits here, as 60 s are by default

    # Both at once: Slurm checks limits twice a minute, and calls a silent node lost after SlurmdTimeout.
    def start(sweep: str, **values: object) -> tuple[SlurmAgents, str]:
        pool = SlurmAgents(SlurmPool(kind="slurm", cpus=1, **values))
        return pool, *pool.start(command(sweep), 1)

    def resumes(sweep: str, agent: str) -> bool:
        until(lambda: "trial 0 (attempt 2)" in log_of(agent))
        before = len(history(sweep))
        until(lambda: len(history(sweep)) > before)
        return before > 0 and history(sweep) == list(range(1, len(history(sweep)) + 1))

    limited, unlucky = make(EPOCHS), make(EPOCHS)
    by_node, second = start(unlucky)
    until(lambda: real_slurm.node_of(second) in slurm.NODES)
    lost = real_slurm.node_of(second)
    (other,) = set(slurm.NODES) - {lost}
    by_limit, first = start(limited, time="2", notice_s=65, sbatch=[f"--nodelist={other}"])
    until(lambda: len(history(unlucky)) > 3)
    real_slurm.lose_node(lost)
    assert resumes(limited, first)  # before the other: its limit is near again 55 s after the restart
    assert "the time limit is near: the job is requeued" in log_of(first)
    assert resumes(unlucky, second)
    assert f"restart 1, on {other}" in log_of(second)
    assert (trials_of(limited), trials_of(unlucky)) == (["running"], ["running"])
    by_limit.stop(first, grace_s=60)
    by_node.stop(second, grace_s=60)


def test_trials_of_a_lost_ray_node_are_resumed_elsewhere_and_ray_stores_no_secret(
    real_ray: ray_nodes.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", "2")
    monkeypatch.setenv("PGPASSWORD", "no-ones-business")
    sweep = make(epochs=80, trials=3)
    # Two agents on two of three nodes, so that there is one when a node goes.
    pool = RayAgents(RayPool(kind="ray", address="auto", gpus=ray_nodes.GPUS))
    agents = pool.start(command(sweep), 2)
    until(lambda: all(len(history(sweep, trial)) > 3 for trial in range(2)))
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    places = {pid: ray_nodes.node_of(pid) for pid in pids if f"\0agent\0{sweep}\0" in words_of(pid)}
    assert len(set(places.values())) == 2
    pid, lost = next((pid, node) for pid, node in places.items() if node != real_ray.head)
    real_ray.lose(lost)
    until(lambda: not alive(pid))  # no agent works on after the cluster has given it up
    until(lambda: all(state.has_ended for state in pool.states().values()))
    assert {state.phase for state in pool.states().values()} == {Phase.DONE}
    assert trials_of(sweep) == ["complete"] * 3
    assert [history(sweep, trial) for trial in range(3)] == [list(range(1, 81))] * 3
    logs = "".join(log_of(f"ray-{os.getpid()}-{agent}") for agent in agents)
    assert "start 2, on " in logs and "(attempt 2)" in logs
    stored = [path for path in real_ray.folder.rglob("*") if path.is_file()]
    assert stored and not [path for path in stored if b"no-ones-business" in path.read_bytes()]
    real_ray.add()


@pytest.mark.parametrize(("kind", "cluster"), [("Slurm", "real_slurm"), ("Ray", "real_ray")])
def test_commands_of_the_page_run_a_sweep_in_postgresql(
    kind: str, cluster: str, postgres: str, tiny_data: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(cluster)
    shutil.copytree(REPOSITORY / "sweeps", "sweeps")
    shutil.copytree(REPOSITORY / "agents", "agents")
    file = Path("agents/slurm.yaml")
    file.write_text(re.sub("^(gres: gpu:1|cpus: 4)$", "", file.read_text(), flags=re.MULTILINE))  # no node has them
    followed = follow_section(f"On a {kind} cluster", postgres, tiny_data)
    assert "note:" not in followed  # nothing to warn of in a search that every node reaches
