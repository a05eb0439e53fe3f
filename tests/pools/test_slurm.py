"""Agents on a real Slurm of two nodes: what happens to jobs there, and that no trial is lost or doubled by it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.config.pool_file import SlurmPool, parse_pool
from fer_sweep.pools import AgentCommand, Phase
from fer_sweep.pools.slurm import SlurmAgents, sbatch_words, script
from tests.processes import SWEEP, fersweep, until
from tests.slurm import Cluster

pytestmark = pytest.mark.usefixtures("tiny_data", "one_core")
EPOCHS = 400


def pool_of(**values: Any) -> SlurmPool:
    pool = parse_pool({"kind": "slurm", "cpus": 1, **values})
    assert isinstance(pool, SlurmPool)
    return pool


def make(epochs: int = EPOCHS, trials: int = 1) -> str:
    text = SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}")
    Path("sweep.yaml").write_text(text)
    return fersweep("create", "sweep.yaml").stdout.strip()


def command(sweep: str) -> AgentCommand:
    return AgentCommand(sweep, ("agent", sweep, "--gpus=none", "--slots=1"), Path("logs").absolute())


def history(sweep: str, trial: int = 0) -> list[int]:
    file = Path(".fersweep/sweeps") / sweep / "trials" / str(trial) / "history.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("}")]


def trials_of(sweep: str) -> list[str]:
    return [trial["state"] for trial in json.loads(fersweep("status", sweep, "--json").stdout)["trials"]]


def node_of(cluster: Cluster, agent: str) -> str:
    return cluster.ask("squeue", "--noheader", "--array", f"--jobs={agent}", "--states=running", "--format=%N")


def test_preemption_and_the_time_limit_checkpoint_and_the_same_job_goes_on(cluster: Cluster) -> None:
    sweep = make()
    # The whole notice is over at once: with a limit of a minute, Slurm gives it at its first look.
    pool = SlurmAgents(pool_of(time="1", notice_s=50, gres="gpu:1"))
    (agent,) = pool.start(command(sweep), 1)
    log = Path("logs") / f"{agent}.log"
    until(lambda: "the time limit is near: queued again" in log.read_text() if log.is_file() else False)
    assert trials_of(sweep) == ["preempted"]
    done = len(history(sweep))
    assert 0 < done < EPOCHS
