"""``fersweep report`` as a process: what is on stdout, what is not, and what it says when it cannot."""

import json
from pathlib import Path

import pytest

from fer_sweep.reports.wandb_views import load_library
from tests.support.processes import fersweep
from tests.support.standin.server import StandIn

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
LOCAL_KEY = "local-" + "7" * 40


@pytest.fixture
def loud(online: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A server, and a wandb that may print as it likes."""
    monkeypatch.delenv("WANDB_SILENT")
    return online


def create(name: str, *options: str) -> str:
    done = fersweep("create", str(SWEEPS / f"{name}.yaml"), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_both_addresses_are_on_stdout_and_nothing_else(loud: StandIn) -> None:
    sweep = create("simple_cnn")
    done = fersweep("report", "--wandb")
    assert done.returncode == 0, done.stderr
    report, workspace = done.stdout.splitlines()
    assert report.startswith(f"report: {loud.url}/tester/fersweep/reports/simple-cnn-sweep-{sweep}--")
    assert workspace.startswith(f"workspace: {loud.url}/tester/fersweep?nw=")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["note", "next"]


def test_one_json_document_for_scripts(loud: StandIn) -> None:
    sweeps = [create("simple_cnn"), create("resnet", "--search", "optuna")]
    done = fersweep("report", "--wandb", "--json", *sweeps, sweeps[0])
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"report", "workspace", "sweeps"}
    assert [sweep["sweep"] for sweep in document["sweeps"]] == sweeps
    assert all(sweep["url"].startswith(f"{loud.url}/tester/fersweep/sweeps/") for sweep in document["sweeps"])
    wr, _ = load_library()
    assert wr.Report.from_url(document["report"]).title == "2 sweeps side by side: simple_cnn, resnet18"


def test_a_login_in_netrc_does(loud: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create("simple_cnn", "--search", "optuna")
    monkeypatch.delenv("WANDB_API_KEY")
    host = loud.url.partition("//")[2]  # as `wandb login` writes it
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {loud.api_key}\n")
    done = fersweep("report", "--wandb")
    assert done.returncode == 0, done.stderr
    assert len(loud.views) == 2


@pytest.mark.parametrize("key", ["", LOCAL_KEY])
def test_no_key_or_a_wrong_one(key: str, loud: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    create("simple_cnn")
    monkeypatch.setenv("WANDB_API_KEY", key)
    done = fersweep("report", "--wandb")
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ") and "API key" in error
    assert hint.startswith("hint: ") and "wandb login" in hint
    assert LOCAL_KEY not in done.stderr
    assert not loud.views


@pytest.mark.parametrize("options", [(), ("--wandb",), ("--format", "csv")])
def test_no_sweep_at_all(options: tuple[str, ...]) -> None:
    assert fersweep("report", *options).returncode == 3


def test_options_of_one_kind_of_report_do_not_go_with_the_other() -> None:
    for options in (("--wandb", "-o", "x.html"), ("--wandb", "--faces"), ("--new",), ("--faces", "--format", "csv")):
        done = fersweep("report", *options)
        assert (done.returncode, done.stdout) == (2, ""), options
        assert "hint: " in done.stderr
