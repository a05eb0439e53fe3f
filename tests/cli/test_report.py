"""``fersweep report --wandb``: the addresses it prints. tests/reports has the views."""

from pathlib import Path

import pytest

from fer_sweep.reports.wandb_views import load_library
from tests.support.processes import fersweep
from tests.support.shell import Shell
from tests.support.standin.server import StandIn

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"


@pytest.mark.stock
def test_stdout_has_both_addresses_or_one_document_and_nothing_else(
    online: StandIn, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = shell.json("create", str(SWEEPS / "simple_cnn.yaml"))["sweep"]
    monkeypatch.delenv("WANDB_SILENT")  # wandb may print as it likes
    done = fersweep("report", "--wandb")
    assert done.returncode == 0, done.stderr
    report, workspace = done.stdout.splitlines()
    assert report.startswith(f"report: {online.url}/tester/fersweep/reports/simple-cnn-sweep-{sweep}--")
    assert workspace.startswith(f"workspace: {online.url}/tester/fersweep?nw=")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["note", "next"]

    sweeps = [sweep, shell.json("create", str(SWEEPS / "resnet.yaml"), "--search", "optuna")["sweep"]]
    document = shell.json("report", "--wandb", *sweeps, sweep)
    assert set(document) == {"report", "workspace", "sweeps"}
    assert [shown["sweep"] for shown in document["sweeps"]] == sweeps
    assert all(shown["url"].startswith(f"{online.url}/tester/fersweep/sweeps/") for shown in document["sweeps"])
    wr, _ = load_library()
    assert wr.Report.from_url(document["report"]).title == "2 sweeps side by side: simple_cnn, resnet18"
