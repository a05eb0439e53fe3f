"""Agents on a real Slurm of two nodes: what happens to jobs there, and that no trial is lost or doubled by it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.config.pool_file import SlurmPool, parse_pool
from fer_sweep.pools import AgentState, Phase
from fer_sweep.pools.slurm import SlurmAgents
from tests.support.pool_stage import command, make, trials_of
from tests.support.processes import until
from tests.support.slurm import NODES, Cluster

pytestmark = pytest.mark.usefixtures("tiny_data", "one_core")
EPOCHS = 5_000
"""More than any machine trains while a test looks on."""


def pool_of(**values: Any) -> SlurmPool:
    pool = parse_pool({"kind": "slurm", "cpus": 1, **values})
    assert isinstance(pool, SlurmPool)
    return pool


def history(sweep: str, trial: int = 0) -> list[int]:
    file = Path(".fersweep/sweeps") / sweep / "trials" / str(trial) / "history.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("}")]


def node_of(cluster: Cluster, agent: str) -> str:
    return cluster.ask("squeue", "--noheader", "--array", f"--jobs={agent}", "--states=running", "--format=%N")


def log_of(agent: str) -> str:
    log = Path("logs") / f"{agent}.log"
    return log.read_text() if log.is_file() else ""


def goes_on(sweep: str, agent: str, trial: int = 0) -> None:
    """Wait until the agent, started again, has trained the trial further, and see that nothing was done twice."""
    again = f"trial {trial} (attempt 2)"
    until(lambda: again in log_of(agent))
    before = len(history(sweep, trial))
    until(lambda: len(history(sweep, trial)) > before)
    assert before > 3
    epochs = history(sweep, trial)
    assert epochs == list(range(1, len(epochs) + 1))


def test_near_the_time_limit_and_with_its_node_lost_a_job_goes_on_from_its_checkpoint(cluster: Cluster) -> None:
    limited, unlucky = make(EPOCHS), make(EPOCHS)
    # Both at a time, for Slurm takes its time over each: it looks at limits twice a minute, and finds the notice due at
    # its second look or its third, with some epochs done by then even on a busy machine; a node that says nothing is
    # down after SlurmdTimeout.
    by_node = SlurmAgents(pool_of(gres="shard:2"))
    (second,) = by_node.start(command(unlucky), 1)
    until(lambda: node_of(cluster, second) in NODES)
    lost = node_of(cluster, second)
    (other,) = set(NODES) - {lost}
    by_limit = SlurmAgents(pool_of(time="2", notice_s=80, gres="gpu:1", sbatch=[f"--nodelist={other}"]))
    (first,) = by_limit.start(command(limited), 1)
    until(lambda: len(history(unlucky)) > 3)
    cluster.lose_node(lost)
    goes_on(limited, first)  # before the other: 40 s after it was started again its limit is near once more
    assert "the time limit is near: queued again" in log_of(first)
    assert trials_of(limited) == ["running"]

    goes_on(unlucky, second)
    assert node_of(cluster, second) == other
    assert f"restart 1, on {other}" in log_of(second)
    assert trials_of(unlucky) == ["running"]
    by_limit.stop(first, grace_s=60)
    by_node.stop(second, grace_s=60)


def test_a_cancelled_element_and_a_preempted_one_hand_their_trials_on(cluster: Cluster) -> None:
    sweep = make(EPOCHS, trials=2)
    pool = SlurmAgents(pool_of(gres="gpu:1", sbatch=["--exclude=n2"]))
    kept, cancelled = pool.start(command(sweep), 2)
    until(lambda: min(len(history(sweep, 0)), len(history(sweep, 1))) > 3)
    theirs = 0 if "trial 0:" in log_of(cancelled) else 1
    cluster.control("scancel", cancelled)
    until(lambda: pool.states()[cancelled].has_ended)
    assert pool.states()[cancelled] == AgentState(Phase.DONE, "cancelled")
    assert trials_of(sweep)[theirs] == "preempted"

    cluster.control("sbatch", "--partition=urgent", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap=true")
    until(lambda: "restart 1" in log_of(kept))
    assert pool.states()[kept].phase is Phase.RUNNING
    until(lambda: "(attempt 2)" in log_of(kept))  # whichever of the two that are to be gone on with
    assert sorted(trials_of(sweep)) == ["preempted", "running"]
    for trial in (0, 1):
        epochs = history(sweep, trial)
        assert epochs == list(range(1, len(epochs) + 1))
    pool.stop(kept, grace_s=60)


def test_with_nothing_left_to_do_agents_end_at_once_and_free_their_places(cluster: Cluster) -> None:
    sweep = make(epochs=1)
    pool = SlurmAgents(pool_of(gres="shard:4", at_once=1))
    agents = pool.start(command(sweep), 2)
    until(lambda: all(state.has_ended for state in pool.states().values()))
    assert {state.phase for state in pool.states().values()} == {Phase.DONE}
    assert trials_of(sweep) == ["complete"]
    assert sum("gives no more trials" in log_of(agent) for agent in agents) == 1
    assert cluster.ask("squeue", "--noheader") == ""
