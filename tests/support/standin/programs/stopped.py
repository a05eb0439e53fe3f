"""Runs until it is stopped on its page."""

import time

import wandb

wandb.init(project="faces", id="stopped")
for _ in range(3000):
    time.sleep(0.1)
