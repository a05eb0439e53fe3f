"""Two runs of a sweep in function mode."""

import sys

import wandb


def train():
    with wandb.init() as run:
        run.log({"loss": run.config.lr})


wandb.agent(sys.argv[1], function=train, count=2, project="faces")
