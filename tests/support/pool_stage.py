"""Pools of stub agents, one of each kind; small sweeps, and the agents that work on them for real."""

import json
import shlex
import sys
import time
from pathlib import Path

from fer_sweep.config.pool_file import parse_pool
from fer_sweep.pools import AgentCommand, Pool
from fer_sweep.pools.local import LocalAgents
from fer_sweep.pools.ray_cluster import RayAgents
from fer_sweep.pools.slurm import SlurmAgents
from tests.support.documentation import code, section
from tests.support.processes import QUICK, SWEEP, fersweep
from tests.support.scripted_ray import ScriptedRay

STUB = f"{sys.executable} -S -m tests.support.stub_agent"


def stub_pool(kind: str, **values: object) -> Pool:
    """A pool whose agents are stubs: ``local``, ``fake slurm``, ``scripted ray``, ``slurm`` or ``ray``."""
    if kind == "local":
        return LocalAgents(STUB.split())
    described = {"kind": kind.rpartition(" ")[2], "command": STUB, "cpus": 1, **values}
    if kind.endswith("slurm"):
        return SlurmAgents(parse_pool(described), poll_s=0.01)
    file = parse_pool({"address": "auto", "gpus": 0.5, **described})
    return RayAgents(file, ray=ScriptedRay()) if kind == "scripted ray" else RayAgents(file)


def stub(plan: str) -> AgentCommand:
    """The command of an agent that does what ``tests/support/stub_agent.py`` makes of a plan."""
    return _command("abc", "abc", plan)


def make(epochs: int, trials: int = 1) -> str:
    """Create a sweep of trials that take that many times some milliseconds."""
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}"))
    made = fersweep("create", "sweep.yaml")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def command(sweep: str) -> AgentCommand:
    return _command(sweep, sweep, "--gpus=none", "--slots=1")


def _command(sweep: str, *words: str) -> AgentCommand:
    logs = Path("logs").absolute()
    logs.mkdir(exist_ok=True)
    return AgentCommand(sweep, ("agent", *words), logs)


def trials_of(sweep: str) -> list[str]:
    return [trial["state"] for trial in json.loads(fersweep("status", sweep, "--json").stdout)["trials"]]


def history(sweep: str, trial: int = 0) -> list[int]:
    """The epochs that a trial has trained."""
    file = Path(".fersweep/sweeps") / sweep / "trials" / str(trial) / "history.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("}")]


def follow_section(title: str, postgres: str, data: str) -> str:
    """Run the commands of a section of the pages with a smaller sweep; returns what `fersweep agent` printed."""
    (block,) = code(section(title), "bash")
    smaller = [*(f"--set={key}={value}" for key, value in QUICK.items()), "--data", data]
    said = []
    for line in block.splitlines():
        text = line.replace("postgresql+psycopg://USER@HOST/DATABASE", shlex.quote(postgres))
        text = text.replace("--count 12", "--count 2").replace("--agents 4", "--agents 2")
        program, *words = shlex.split(text)
        done = fersweep(*words, *(smaller if words[0] == "create" else []))
        assert (program, done.returncode) == ("fersweep", 0), f"{line}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout + done.stderr)
    _, followed, status, best = said
    assert status.count("complete") == 2 and "finished" in status
    assert "winner" in best
    return followed


if __name__ == "__main__":  # start an agent in a pool and be there until killed
    pool = stub_pool(sys.argv[1])
    pool.start(stub("waits"), 1)
    while True:
        pool.states()
        time.sleep(0.1)
