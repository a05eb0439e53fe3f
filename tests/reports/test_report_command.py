"""``fersweep report`` into files, of a sweep that was really run on drawn faces."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.reports.conftest import Show
from tests.support.shell import Shell

pytestmark = pytest.mark.usefixtures("one_core")

SWEEP = """\
program: fersweep
method: random
name: "small </script> <b>one</b>"
metric: {name: best_val_acc, goal: maximize}
run_cap: 3
parameters:
  model: {value: simple_cnn}
  data: {value: tiny}
  epochs: {value: 4}
  channels: {values: [2, 4]}
  hidden: {value: 8}
  batch_size: {value: 16}
  lr: {distribution: log_uniform_values, min: 2e-3, max: 4e-3}
"""


@pytest.fixture
def sweep(shell: Shell, tiny_data: str) -> str:
    """The id of a sweep whose three trials are done."""
    Path("small.yaml").write_text(SWEEP)
    sweep_id: str = shell.json("create", "small.yaml", "--search", "optuna")["sweep"]
    code, _, err = shell("agent", sweep_id, "--gpus", "none")
    assert code == 0, err
    return sweep_id


def test_a_real_sweep_in_every_format(shell: Shell, sweep: str, show: Show) -> None:
    code, out, err = shell("report", "-o", "r.html", "--faces", "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "file": "r.html",
        "format": "html",
        "bytes": Path("r.html").stat().st_size,
        "sweeps": [sweep],
        "trials": 3,
    }
    shown = show(Path("r.html").resolve())
    shown.draw_all()
    assert shown.errors == [] and shown.outside() == []
    assert shown.page.locator(".faces img").count() >= 10
    assert shown.page.evaluate(
        "[...document.querySelectorAll('.faces img')].every(i => i.loading === 'lazy' || i.width)"
    )
    assert shown.page.locator("#found").inner_text() == "3 of 3 trials"
    assert "small </script> <b>one</b>" in shown.page.locator("h1").inner_text()
    assert re.search(r"[0-9a-f]{64}", shown.page.locator("#environment").inner_text())

    code, out, _ = shell("report", "--format", "csv")
    read = list(csv.DictReader(io.StringIO(out, newline="")))
    assert code == 0 and [row["state"] for row in read] == ["complete"] * 3
    code, out, _ = shell("report", "--format", "json", "-o", "-")
    rows = json.loads(out)
    assert code == 0 and sorted(float(row["param.lr"]) for row in read) == sorted(r["parameters"]["lr"] for r in rows)
    code, out, _ = shell("report", "--format", "md", sweep)
    assert code == 0 and "## Winner" in out and sweep in out
    code, out, err = shell("report", "-o", "t.parquet")
    assert code == 0, err
    assert Path("t.parquet").read_bytes()[:4] == b"PAR1"


def test_faces_are_left_out_unless_asked_for(shell: Shell, sweep: str) -> None:
    code, out, err = shell("report")
    assert (code, out) == (0, f"report: report-{sweep}.html\n"), err
    assert "<img" not in Path(f"report-{sweep}.html").read_text()
    assert not list(Path(".fersweep").rglob("mistakes.json")), "the model was not even evaluated"


def test_a_report_without_the_model_says_so(shell: Shell, sweep: str) -> None:
    for path in Path(".fersweep").rglob("best.safetensors"):
        path.unlink()
    code, _, err = shell("report", "--faces", "-o", "r.html")
    assert code == 0 and "note: no faces in the report: its model is not here" in err
    assert "They are not here" in Path("r.html").read_text()


def test_what_cannot_be_written(shell: Shell, sweep: str) -> None:
    cases = {
        ("-o", "report.pdf"): "its ending names no format",
        ("-o", "folder.html"): "a folder",
        ("-o", "-", "--format", "parquet"): "parquet is no text for stdout",
        ("--format", "csv", "--json"): "cannot both be on stdout",
    }
    Path("folder.html").mkdir()
    for options, message in cases.items():
        code, out, err = shell("report", *options)
        assert (code, out) == (2, ""), options
        assert message in err and "hint: " in err


def test_a_sweep_without_a_trial(shell: Shell, tiny_data: str) -> None:
    Path("small.yaml").write_text(SWEEP)
    assert shell("create", "small.yaml", "--search", "optuna")[0] == 0
    code, _, err = shell("report")
    assert code == 3 and "no trial yet" in err and "hint: train some: fersweep agent" in err


def test_another_address_than_this_machines_is_said_aloud(shell: Shell, sweep: str, monkeypatch: Any) -> None:
    served: list[Any] = []
    from fer_sweep.reports import dashboard

    monkeypatch.setattr(dashboard, "serve", lambda entry, **options: served.append((entry.id, options["host"])))
    assert shell("dashboard") == (0, "", "")
    code, _, err = shell("dashboard", sweep, "--host", "0.0.0.0")
    assert code == 0 and "warning: listening on 0.0.0.0" in err and "no password" in err
    assert served == [(sweep, "127.0.0.1"), (sweep, "0.0.0.0")]
