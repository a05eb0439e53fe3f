"""What the tests of opened sweeps share."""

from pathlib import Path

import pytest

from fer_sweep.sweeps import Sweep, opening
from tests.support.searches import create


@pytest.fixture
def named(monkeypatch):
    """Creates a sweep of a name and id."""

    def make(name: str, sweep_id: str, **options) -> Sweep:
        letters = iter(sweep_id)
        monkeypatch.setattr(opening.secrets, "choice", lambda _: next(letters))
        file = Path("made.yaml")
        file.write_text(
            "program: fersweep\nmethod: grid\nmetric: {name: best_val_acc, goal: maximize}\n"
            "parameters: {model: {value: simple_cnn}, data: {value: synthetic}, seed: {values: [1, 2]}}\n"
        )
        return create(file, name=name, **options)

    return make
