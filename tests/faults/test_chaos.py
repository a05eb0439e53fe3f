"""Chaos, in brief: the long runs are `make chaos`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STRIKES = 8
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("search", ["optuna", "wandb"])
def test_kills_and_pauses_lose_and_double_nothing(search: str, tmp_path: Path) -> None:
    # In a process of its own, which takes in the orphans of all that is below it.
    words = f"--search {search} --strikes {STRIKES} --seconds 180 --seed 1 --trials 6 --epochs 40 --compared 4".split()
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.chaos", *words, "--json", str(tmp_path / "chaos.json")],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "chaos.json").read_text())
    assert found["findings"] == []
    assert sum(row["times"] for row in found["table"]) >= 3  # the trials may have ended before all were done
    assert found["compared"] >= 1
