"""``fersweep report --wandb``: the addresses it prints, and the logins it refuses. tests/reports has the views."""

from pathlib import Path

import pytest

from fer_sweep.reports.wandb_views import load_library
from tests.support.processes import fersweep
from tests.support.shell import Shell
from tests.support.standin.server import StandIn

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
LOCAL_KEY = "local-" + "7" * 40


@pytest.fixture
def sweep(online: StandIn, shell: Shell) -> str:
    """A sweep on a server."""
    made: str = shell.json("create", str(SWEEPS / "simple_cnn.yaml"))["sweep"]
    return made


@pytest.mark.stock
def test_stdout_has_both_addresses_and_nothing_else(
    sweep: str, online: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_SILENT")  # wandb may print as it likes
    done = fersweep("report", "--wandb")
    assert done.returncode == 0, done.stderr
    report, workspace = done.stdout.splitlines()
    assert report.startswith(f"report: {online.url}/tester/fersweep/reports/simple-cnn-sweep-{sweep}--")
    assert workspace.startswith(f"workspace: {online.url}/tester/fersweep?nw=")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["note", "next"]


@pytest.mark.stock
def test_several_sweeps_are_one_json_document(sweep: str, online: StandIn, shell: Shell) -> None:
    sweeps = [sweep, shell.json("create", str(SWEEPS / "resnet.yaml"), "--search", "optuna")["sweep"]]
    document = shell.json("report", "--wandb", *sweeps, sweep)
    assert set(document) == {"report", "workspace", "sweeps"}
    assert [shown["sweep"] for shown in document["sweeps"]] == sweeps
    assert all(shown["url"].startswith(f"{online.url}/tester/fersweep/sweeps/") for shown in document["sweeps"])
    wr, _ = load_library()
    assert wr.Report.from_url(document["report"]).title == "2 sweeps side by side: simple_cnn, resnet18"


@pytest.mark.parametrize("key", ["", LOCAL_KEY])
def test_no_key_or_a_wrong_one_is_refused(
    key: str, sweep: str, online: StandIn, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    code, out, err = shell("report", "--wandb")
    assert (code, out) == (2, "")
    error, hint = err.splitlines()
    assert error.startswith("error: ") and "API key" in error
    assert hint.startswith("hint: ") and "wandb login" in hint
    assert LOCAL_KEY not in err
    assert not online.views
