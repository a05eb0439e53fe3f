"""Seconds a trial under three agents, on one stand-in server and with one trivial trial.

The trial is one epoch of a small SimpleCNN on 64 drawn faces, tracked online. Under the stock agents it is what their
users write: a program started anew for every trial (``fersweep train``), or a function in a process that has torch
imported. A script that only logs, without torch, shows what the stock agent costs by itself. The grid of seeds is
proposed in no time, so that nothing but the agents is measured.

    python -m tests.benchmarks --only agents
"""

import itertools
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.commands import SCRIPTS, SWEEPS, agent_environment, run
from tests.benchmarks.rows import Row
from tests.support.standin.server import StandIn

TRIALS = 6
TRIAL = {
    "model": "simple_cnn",
    "data": "synthetic",
    "epochs": 1,
    "train_samples": 64,
    "channels": 4,
    "hidden": 8,
    "batch_size": 64,
}
ONLY_LOGS = """
import wandb
with wandb.init() as run:
    run.log({"epoch": 1, "val_acc": 0.5, "best_val_acc": 0.5})
"""
FUNCTION = """
import sys, tempfile
from pathlib import Path
import wandb
from fer_sweep.config.trial import parse_trial
from fer_sweep.training.loop import train

def trial():
    with wandb.init() as run, tempfile.TemporaryDirectory() as folder:
        outcome = train(parse_trial(dict(run.config)), Path(folder), on_epoch=run.log)
        run.summary.update(outcome.result.model_dump(mode="json"))

wandb.agent(sys.argv[1], function=trial)
"""


def seconds_a_trial(agent: str) -> float:
    """The median time from one run's end on the server to the next one's, under an agent: a name in AGENTS."""
    with StandIn() as server, tempfile.TemporaryDirectory() as folder:
        parameters: dict[str, Any] = {name: {"value": value} for name, value in TRIAL.items()}
        parameters["seed"] = {"values": list(range(TRIALS))}
        command = ["${env}", "python", "logs.py"] if agent == "script" else ["${env}", "fersweep", "train", "${args}"]
        metric = {"name": "best_val_acc", "goal": "maximize"}
        sweep = server.create_sweep(
            {"program": "logs.py", "command": command, "method": "grid", "metric": metric, "parameters": parameters},
            project="bench",
        )
        (Path(folder) / "logs.py").write_text(ONLY_LOGS)
        environment = agent_environment(server.environment, folder)
        words = AGENTS[agent](f"{server.entity}/bench/{sweep.id}")
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=folder)
        runs = [server.runs[run] for run in sweep.run_ids]
        if done.returncode or [run.state for run in runs] != ["finished"] * TRIALS:
            raise SystemExit(f"{agent}: {done.returncode}\n{done.stdout}{done.stderr}\n{server.dump()}")
        ends = [r.at for r in server.requests if r.operation == "file_stream" and r.variables.get("complete")]
        return statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))


AGENTS: Mapping[str, Callable[[str], list[str]]] = {
    "stock": lambda sweep: [str(SCRIPTS / "wandb"), "agent", sweep],
    "script": lambda sweep: [str(SCRIPTS / "wandb"), "agent", sweep],
    "function": lambda sweep: [sys.executable, "-c", FUNCTION, sweep],
    "fersweep": lambda sweep: [str(SCRIPTS / "fersweep"), "agent", sweep, "--gpus", "none", "--slots", "1"],
}


def seconds_between_trials(mode: str) -> float:
    """From one trial's end to the first step of the next one in its slot, with W&B tracking in ``mode``."""
    tiny = ["epochs=1", "train_samples=64", "channels=4", "hidden=8"]
    fixed = [word for value in tiny for word in ("--set", value)]
    words = ["run", str(SWEEPS / "simple_cnn.yaml"), "--data=synthetic", "--count=8", "--slots=1", *fixed]
    if mode == "online":
        with StandIn() as server:
            text = run([*words, "--search=optuna"], mode=mode, **server.environment)
    else:
        text = run(words, mode=mode)
    found = re.search(r"first step: ([0-9.]+) s", text)
    assert found, text
    return float(found[1])


BETWEEN = "end of a trial to the next one's first step, {}, s"
ROWS: Mapping[str, Row] = {
    "between": Row(BETWEEN.format("not tracked"), {"fersweep": lambda _: seconds_between_trials("disabled")}, "less"),
    "between-offline": Row(
        BETWEEN.format("tracked by wandb offline"), {"fersweep": lambda _: seconds_between_trials("offline")}, "less"
    ),
    "between-online": Row(
        BETWEEN.format("tracked online (a server on loopback)"),
        {"fersweep": lambda _: seconds_between_trials("online")},
        "less",
    ),
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
