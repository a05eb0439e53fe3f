"""Runs until SIGTERM."""

import signal
import threading

import wandb

run = wandb.init()
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
run.log({"loss": 1})
asked.wait(60)
run.finish(exit_code=1)
