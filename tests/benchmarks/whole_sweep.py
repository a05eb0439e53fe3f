"""A whole sweep: sixteen SimpleCNN trials on a subset of FER2013, from the agent's start to its end.

The same sweep on the same W&B server (the stand-in, whose search and early termination are W&B's own ``sweeps``): under
``fersweep agent``, and under stock ``wandb agent`` with the plain script. Both are tracked online. On the full
training split the stock side takes over an hour a repeat here. The subset makes more of the start of each trial, and
less of each epoch.
"""

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.commands import FERSWEEP, WANDB, agent_environment
from tests.benchmarks.faces import SUBSET, SUBSET_TRAIN, subset
from tests.benchmarks.rows import Row
from tests.support.standin.server import StandIn

TRIALS, EPOCHS = 16, 8
SEARCHED: Mapping[str, Any] = {
    "lr": {"distribution": "log_uniform_values", "min": 3e-4, "max": 1e-2},
    "dropout": {"min": 0.0, "max": 0.5},
    "channels": {"values": [16, 32]},
    "hidden": {"values": [64, 128, 256]},
    "batch_size": {"values": [64, 128, 256]},
}
EARLY = {"type": "hyperband", "min_iter": 2, "eta": 3}
SILENCE_S = 60.0
"""Longer than the start of a stock trial or an epoch of the plain script takes here."""


@functools.cache
def swept(agent: str, repeat: int) -> tuple[float, float]:
    """Wall time in seconds and the best validation accuracy of the sweep under an agent; run once a repeat."""
    images = subset()
    fixed: dict[str, Any] = {"epochs": EPOCHS, "seed": repeat}
    if agent == "fersweep":
        fixed |= {"model": "simple_cnn", "data": SUBSET}
        command = ["${env}", "fersweep", "train", "${args}"]
    else:
        fixed |= {"folder": str(images)}
        command = ["${env}", sys.executable, "-m", "tests.benchmarks.plain", "--wandb", "${args}"]
    parameters = {**SEARCHED, **{name: {"value": value} for name, value in fixed.items()}}
    spec = {"program": "plain.py", "command": command, "method": "bayes", "run_cap": TRIALS, "early_terminate": EARLY}
    spec |= {"metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": parameters}
    with StandIn() as server, tempfile.TemporaryDirectory() as folder:
        sweep = server.create_sweep(spec, project="bench")
        path = f"{server.entity}/bench/{sweep.id}"
        environment = agent_environment(server.environment, folder)
        agents = {
            "fersweep": [*FERSWEEP, "agent", path, f"--slots={os.cpu_count()}"],
            "stock": [*WANDB, "agent", path],
        }
        began = time.monotonic()
        working = subprocess.Popen(
            agents[agent], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder
        )
        # The stock agent stays until the server counts its stopped runs, which end without a word, as crashed. That
        # wait is not counted: the sweep is over with the last word of a run.
        while working.poll() is None and not (len(sweep.run_ids) == TRIALS and _silent_for(server) > SILENCE_S):
            time.sleep(0.5)
        working.terminate()
        output, _ = working.communicate()
        seconds = max(r.at for r in server.requests if r.operation == "file_stream") - began
        runs = [server.runs[run_id] for run_id in sweep.run_ids]
        bests = [max((row.get("best_val_acc", 0.0) for row in run.history), default=0.0) for run in runs]
        if len(runs) != TRIALS or min(bests) == 0.0:
            raise SystemExit(f"{agent}: {working.returncode}\n{output[-4000:]}\n{server.dump()}")
        return seconds, max(bests)


def _silent_for(server: StandIn) -> float:
    spoken = [r.at for r in server.requests if r.operation == "file_stream"]
    return time.monotonic() - max(spoken, default=time.monotonic())


ROWS: Mapping[str, Row] = {
    "sweep": Row(
        f"a sweep of {TRIALS} SimpleCNN trials on {SUBSET_TRAIN:,} images of FER2013 with early termination, s",
        {
            "fersweep": lambda repeat: swept("fersweep", repeat)[0],
            "stock `wandb agent` + plain script": lambda repeat: swept("stock", repeat)[0],
        },
        better="less",
        is_slow=True,
    ),
    "sweep-best": Row(
        "the best validation accuracy of those sweeps",
        {
            "fersweep": lambda repeat: swept("fersweep", repeat)[1],
            "stock `wandb agent` + plain script": lambda repeat: swept("stock", repeat)[1],
        },
        better="same",
        is_slow=True,
    ),
}
