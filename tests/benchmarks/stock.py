"""What users of stock agents write: ``python -m tests.benchmarks.stock logs``, or ``function SWEEP``."""

import sys
import tempfile
from pathlib import Path

import wandb


def logs() -> None:
    """A program that only logs."""
    with wandb.init() as run:
        run.log({"epoch": 1, "val_acc": 0.5, "best_val_acc": 0.5})


def function(sweep: str) -> None:
    """A function in a process that has torch imported."""
    from fer_sweep.config.trial import parse_trial
    from fer_sweep.training.loop import train

    def trial() -> None:
        with wandb.init() as run, tempfile.TemporaryDirectory() as folder:
            outcome = train(parse_trial(dict(run.config)), Path(folder), on_epoch=run.log)
            run.summary.update(outcome.result.model_dump(mode="json"))

    wandb.agent(sweep, function=trial)


if __name__ == "__main__":
    {"logs": logs, "function": function}[sys.argv[1]](*sys.argv[2:])
