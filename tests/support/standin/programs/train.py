"""Trains three epochs of a sweep's run."""

import wandb

run = wandb.init()
for epoch in range(3):
    run.log({"loss": run.config["lr"] / (epoch + 1)})
run.finish()
