"""The console script as a process: what it imports, and what its forks run of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import SWEEP, fersweep

HEAVY = ("torch", "torchvision", "transformers", "wandb", "optuna", "numpy", "scipy", "pydantic", "rich", "sqlalchemy")
HEAVY += ("plotly", "jinja2", "optuna_dashboard")


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys; import fer_sweep.cli; print(' '.join(m for m in sys.modules if '.' not in m))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(found)


SCRIPT = """
import sys
from fer_sweep.cli import main

open("main-was-run", "a").write("x")
if __name__ == "__main__":
    sys.argv = ["fersweep", "agent", "--gpus", "none"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    print("LOADED", *[m for m in ("torch", "torchvision", "transformers") if m in sys.modules])
"""
"""A console script that tells of itself."""


@pytest.mark.process
@pytest.mark.usefixtures("one_core", "tiny_data")
def test_an_agent_never_imports_torch_and_its_forks_never_run_its_main_module(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    assert fersweep("create", "sweep.yaml").returncode == 0
    (tmp_path / "agent.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "agent.py"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "LOADED", done.stdout + done.stderr
    # A fork that ran the main module again would pay for its imports, and break when they change on disk.
    assert (tmp_path / "main-was-run").read_text() == "x"
    assert json.loads(fersweep("status", "--json").stdout)["trials"][0]["state"] == "complete"
