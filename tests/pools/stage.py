"""A small sweep, and the agents that work on it."""

import json
from pathlib import Path

from fer_sweep.pools import AgentCommand
from tests.processes import SWEEP, fersweep


def make(epochs: int, trials: int = 1) -> str:
    text = SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}")
    Path("sweep.yaml").write_text(text)
    made = fersweep("create", "sweep.yaml")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def command(sweep: str) -> AgentCommand:
    return AgentCommand(sweep, ("agent", sweep, "--gpus=none", "--slots=1"), Path("logs").absolute())


def trials_of(sweep: str) -> list[str]:
    return [trial["state"] for trial in json.loads(fersweep("status", sweep, "--json").stdout)["trials"]]
