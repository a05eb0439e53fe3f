"""A home with a sweep in it, and a drive to mirror it to."""

from pathlib import Path

import pytest

from tests.support.processes import SWEEP


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A mounted drive."""
    folder = tmp_path / "drive"
    folder.mkdir()
    return folder


@pytest.fixture
def sweep_file(tiny_data: str, tmp_path: Path) -> Path:
    """A sweep of three trials of three epochs."""
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.replace("EPOCHS", "3").replace("run_cap: 1", "run_cap: 3"))
    return file
