"""Programs that run in processes of their own, with stock wandb."""

from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")
