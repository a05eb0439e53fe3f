"""What the tests of commands share."""

from pathlib import Path

from tests.support.processes import SWEEP


def write_sweep(trials: int = 1, epochs: int = 2, name: str = "sweep.yaml", *, method: str = "random") -> str:
    """Write a sweep file of so many trials on `tiny` into the working directory; gives its name."""
    text = SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}")
    Path(name).write_text(text.replace("method: random", f"method: {method}"))
    return name
