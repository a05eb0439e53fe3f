"""A home with a sweep in it, and a drive to mirror it to."""

import pytest

from tests.support.processes import SWEEP


@pytest.fixture
def folder(tmp_path):
    """Where the mirror is to be, on a mounted drive."""
    (tmp_path / "drive").mkdir()
    return tmp_path / "drive" / "m"


@pytest.fixture
def write_sweep(tiny_data, tmp_path):
    """Writes the file of a sweep of so many trials and epochs."""

    def write(trials=3, epochs=3):
        text = SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}")
        (tmp_path / "sweep.yaml").write_text(text)
        return tmp_path / "sweep.yaml"

    return write
