"""The notebook of docs/notebooks.md, run cell by cell by a real kernel."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.documentation import code, section
from tests.support.faces import prepare_synthetic

DRIVE = "/content/drive/MyDrive"


@pytest.mark.process
@pytest.mark.usefixtures("one_core")
def test_the_cells_of_the_page_show_progress_rankings_and_figures(own_folders, monkeypatch):
    for module in ("nbclient", "ipykernel", "pandas"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'fersweep[dev]'")
    import nbformat
    from nbclient import NotebookClient

    (own_folders / "drive").mkdir()
    prepare_synthetic()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(own_folders / "ipython"))
    smaller = "count=2, data='synthetic', constants={'epochs': 2, 'channels': 4, 'hidden': 8})"
    cells = [
        cell.replace(DRIVE, str(own_folders / "drive"))
        .replace("data prepare auto", "data list")
        .replace("count=12)", smaller)
        for cell in code(section("In a notebook"), "python")
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in [*cells, "sweep", "sweep.plot('nonsense')"]]
    )
    NotebookClient(notebook, timeout=300, allow_errors=True).execute()
    shown = [cell.outputs for cell in notebook.cells]
    agent, choice, plot, records, other, sweep, wrong = shown[2:]
    assert not [output for outputs in shown[:-1] for output in outputs if output.output_type == "error"]
    (bar,) = [output for output in agent if output.output_type == "display_data"]
    assert "100%" in bar.data["text/html"] and "2/2 trials" in bar.data["text/plain"]
    assert "complete" in "".join(output.text for output in agent if output.output_type == "stream")
    for (output,) in (choice, sweep):
        assert output.data["text/html"].count("<svg viewBox") == 2 and len(output.data["text/html"]) < 50_000
    assert plot[0].data["application/vnd.plotly.v1+json"]["data"]
    assert "best_val_acc" in records[0].data["text/html"]
    assert "learning-rates: running, 0 trials" in other[0].data["text/plain"]
    assert "InputError" in wrong[0].ename and "hint: one of pareto" in "\n".join(wrong[0].traceback)
