"""Seconds a trial under an agent: fersweep's, and the stock ones on one stand-in server with one trivial trial.

The trial is one epoch of a small SimpleCNN on 64 drawn faces, tracked online. Under the stock agents it is what their
users write: a program started anew for every trial (``fersweep train``), or a function in a process that has torch
imported. A script that only logs, without torch, shows what the stock agent costs by itself. The grid of seeds is
proposed in no time, so that nothing but the agents is measured.
"""

import itertools
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.commands import FERSWEEP, SWEEPS, WANDB, agent_environment, run
from tests.benchmarks.rows import Row
from tests.support.standin.server import StandIn

TRIALS = 6
TINY = {"epochs": 1, "train_samples": 64, "channels": 4, "hidden": 8}
STOCK = [sys.executable, "-m", "tests.benchmarks.stock"]
AGENTS: Mapping[str, list[str]] = {
    "fersweep": [*FERSWEEP, "agent", "SWEEP", "--gpus", "none", "--slots", "1"],
    "stock": [*WANDB, "agent", "SWEEP"],
    "script": [*WANDB, "agent", "SWEEP"],
    "function": [*STOCK, "function", "SWEEP"],
}


def seconds_a_trial(agent: str) -> float:
    """The median time from one run's end on the server to the next one's, under an agent: a name in AGENTS."""
    values = {"model": "simple_cnn", "data": "synthetic", "batch_size": 64, **TINY}
    parameters: dict[str, Any] = {name: {"value": value} for name, value in values.items()}
    parameters["seed"] = {"values": list(range(TRIALS))}
    program = [*STOCK, "logs"] if agent == "script" else ["fersweep", "train", "${args}"]
    spec = {"program": "stock.py", "command": ["${env}", *program], "method": "grid", "parameters": parameters}
    spec["metric"] = {"name": "best_val_acc", "goal": "maximize"}
    with StandIn() as server, tempfile.TemporaryDirectory() as folder:
        sweep = server.create_sweep(spec, project="bench")
        environment = agent_environment(server.environment, folder)
        words = [word.replace("SWEEP", f"{server.entity}/bench/{sweep.id}") for word in AGENTS[agent]]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=folder)
        if done.returncode or [server.runs[run].state for run in sweep.run_ids] != ["finished"] * TRIALS:
            raise SystemExit(f"{agent}: {done.returncode}\n{done.stdout}{done.stderr}\n{server.dump()}")
        ends = [r.at for r in server.requests if r.operation == "file_stream" and r.variables.get("complete")]
        return statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))


def seconds_between_trials(mode: str) -> float:
    """From one trial's end to the first step of the next one in its slot, with W&B tracking in ``mode``."""
    words = ["run", str(SWEEPS / "simple_cnn.yaml"), "--data=synthetic", "--count=8", "--slots=1"]
    words += [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    if mode == "online":
        with StandIn() as server:
            text = run([*words, "--search=optuna"], mode=mode, **server.environment)
    else:
        text = run(words, mode=mode)
    found = re.search(r"first step: ([0-9.]+) s", text)
    assert found, text
    return float(found[1])


def _between(how: str, mode: str) -> Row:
    title = f"end of a trial to the next one's first step, {how}, s"
    return Row(title, {"fersweep": lambda _: seconds_between_trials(mode)}, "less")


ROWS: Mapping[str, Row] = {
    "between": _between("not tracked", "disabled"),
    "between-offline": _between("tracked by wandb offline", "offline"),
    "between-online": _between("tracked online (a server on loopback)", "online"),
    "agents": Row(
        "a trivial trial under an agent, from one run's end on the server to the next one's, s",
        {
            "fersweep": lambda _: seconds_a_trial("fersweep"),
            "stock `wandb agent`, `fersweep train`": lambda _: seconds_a_trial("stock"),
            "stock `wandb agent`, a script that only logs": lambda _: seconds_a_trial("script"),
            "stock `wandb.agent(function=)`": lambda _: seconds_a_trial("function"),
        },
        "less",
        is_slow=True,
    ),
}
