"""The package and its console script as processes: what they import, and what their forks run of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import SWEEP, fersweep, imported_by

HEAVY = {"torch", "torchvision", "transformers", "wandb", "optuna", "numpy", "scipy", "rich", "sqlalchemy", "yaml"}
HEAVY |= {"plotly", "jinja2", "optuna_dashboard"}
COMMAND = "import sys; sys.argv = ['fersweep']; from fer_sweep.cli import main; main()"
TAB = {"_FERSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "fersweep agent ", "COMP_CWORD": "2"}


@pytest.mark.parametrize(
    ("code", "environment", "more"),
    [
        ("import fer_sweep", {}, {"pydantic"}),
        ("import fer_sweep.cli", {}, {"pydantic"}),
        (COMMAND, TAB, set()),  # pydantic is typer's own there, for options
    ],
)
def test_neither_the_package_nor_its_command_line_nor_tab_imports_anything_heavy(
    code: str, environment: dict[str, str], more: set[str]
) -> None:
    assert not (HEAVY | more) & imported_by("-c", code, **environment)


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
