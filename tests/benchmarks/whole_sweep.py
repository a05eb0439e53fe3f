"""A whole sweep: sixteen SimpleCNN trials on a subset of FER2013, from the agent's start to its end.

The same sweep on the same W&B server (the stand-in, whose search and early termination are W&B's own ``sweeps``): under
``fersweep agent``, and under stock ``wandb agent`` with the plain script. Both are tracked online. On the full
training split the stock side takes over an hour a repeat here. The subset makes more of the start of each trial, and
less of each epoch.
"""

import functools
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.commands import FERSWEEP, WANDB, agent_at_work
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
SETTINGS = {"method": "bayes", "run_cap": TRIALS, "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 3}}
STOCK = "stock `wandb agent` + plain script"
SILENCE_S = 60.0
"""Longer than the start of a stock trial or an epoch of the plain script takes here."""


@functools.cache
def swept(side: str, repeat: int) -> tuple[float, float]:
    """Wall time in seconds and the best validation accuracy of the sweep under an agent; run once a repeat."""
    if side == STOCK:
        agent, fixed = [*WANDB, "agent", "SWEEP"], {"folder": str(subset())}
        program = [sys.executable, "-m", "tests.benchmarks.plain", "--wandb", "${args}"]
    else:
        subset()
        agent, fixed = [*FERSWEEP, "agent", "SWEEP", f"--slots={os.cpu_count()}"], {"data": SUBSET}
        program = ["fersweep", "train", "${args}"]
    fixed |= {"model": "simple_cnn", "epochs": EPOCHS, "seed": repeat}
    parameters = {**SEARCHED, **{name: {"value": value} for name, value in fixed.items()}}
    with agent_at_work(agent, program, parameters, **SETTINGS) as (server, sweep, working):
        began = time.monotonic()
        # The stock agent stays until the server counts its stopped runs, which end without a word, as crashed. That
        # wait is not counted: the sweep is over with the last word of a run.
        while working.poll() is None and not (
            len(sweep.run_ids) == TRIALS and time.monotonic() - _last_word(server) > SILENCE_S
        ):
            time.sleep(0.5)
        working.terminate()
        output, _ = working.communicate()
        runs = [server.runs[run_id] for run_id in sweep.run_ids]
        bests = [max((row.get("best_val_acc", 0.0) for row in run.history), default=0.0) for run in runs]
        if len(runs) != TRIALS or min(bests) == 0.0:
            raise SystemExit(f"{side}: {working.returncode}\n{output[-4000:]}\n{server.dump()}")
        return _last_word(server) - began, max(bests)


def _last_word(server: StandIn) -> float:
    """When a run last reported; now if none has."""
    return max((r.at for r in server.requests if r.operation == "file_stream"), default=time.monotonic())


def _row(title: str, figure: int, better: str) -> Row:
    sides = {side: lambda repeat, side=side: swept(side, repeat)[figure] for side in ("fersweep", STOCK)}
    return Row(title, sides, better, is_slow=True)


SIZE = f"{TRIALS} SimpleCNN trials on {SUBSET_TRAIN:,} images of FER2013"
ROWS = {
    "sweep": _row(f"a sweep of {SIZE} with early termination, s", 0, "less"),
    "sweep-best": _row("the best validation accuracy of those sweeps", 1, "same"),
}
