"""Errors of W&B at the command line: what happened, what to do, an exit code, and never the key."""

import fcntl
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from fer_sweep.files import trial_folder
from tests.cli.conftest import Shell
from tests.support.scripted_search import TINY
from tests.support.standin.server import StandIn

PARAMETERS = {name: {"value": value} for name, value in TINY.items()}
SWEEP = {"method": "random", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": PARAMETERS}
LOCAL_KEY = "local-" + "7" * 40
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(shell: Shell) -> Say:
    """Run a command beside a sweep file: exit code, stdout, stderr."""
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP))

    def run(*words: str) -> tuple[int, str, str]:
        code, out, err = shell(*words)
        assert "Traceback" not in err
        return code, out, err

    return run


def test_a_missing_key_is_refused(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "no API key" in err
    assert "wandb login" in err and "--search optuna" in err


def test_without_a_login_the_search_is_embedded(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    code, out, err = say("create", "sweep.yaml", "--json")
    assert code == 0, err
    assert (json.loads(out)["search"], json.loads(out)["url"]) == ("optuna", None)


def test_a_wrong_key_is_refused(say: Say, online: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", LOCAL_KEY)
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "does not know this API key" in err and "wandb login --relogin" in err
    assert LOCAL_KEY not in err


def test_an_entity_without_permission_is_refused(say: Say, online: StandIn) -> None:
    code, _, err = say("create", "sweep.yaml", "--entity", "strangers")
    assert code == 2
    assert "W&B:" in err and "hint:" in err
    assert not online.sweeps


@pytest.mark.parametrize(
    ("sweep", "needle"),
    [
        ("tester/nowhere/abcd1234", "no project tester/nowhere"),
        ("tester/faces/abcd1234", "no sweep abcd1234 in tester/faces"),
        ("nobody/faces/abcd1234", "nobody"),
        ("a/b/c/d", "names no sweep"),
        ("https://wandb.ai/tester/faces/sweeps/abcd1234", "is on another server"),
        ("http://127.0.0.1/tester/faces", "names no sweep"),
        ("abcd1234", "no sweep 'abcd1234'"),
    ],
)
def test_an_unknown_sweep_is_refused(say: Say, online: StandIn, sweep: str, needle: str) -> None:
    online.create_sweep({"program": "x", **SWEEP}, project="faces")
    code, _, err = say("agent", sweep)
    assert code == 2
    assert needle in err and "hint:" in err


def test_a_server_out_of_reach_is_named(
    say: Say, online: StandIn, tiny_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.wandb_client.transport._LONGEST_WAIT_S", 0.0)
    code, _, _ = say("create", "sweep.yaml")
    assert code == 0
    online.faults.offline()
    for words in (("agent",), ("create", "sweep.yaml"), ("pause",), ("sync",)):
        code, _, err = say(*words)
        assert code == 1, words
        assert f"no answer from the W&B server {online.url}" in err
        assert "WANDB_BASE_URL" in err
    code, out, err = say("status", "--json")
    assert (code, json.loads(out)["state"]) == (0, "unknown")
    assert "no answer" in err


def test_an_address_of_another_kind_of_server_is_refused(
    say: Say, online: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.faults.fail("*", status=200, body="<html>welcome</html>")
    code, _, err = say("create", "sweep.yaml")
    assert code == 1
    assert "did not answer" in err and "WANDB_BASE_URL" in err


def test_a_deleted_sweep_ends_the_agent(say: Say, online: StandIn, tiny_data: str) -> None:
    say("create", "sweep.yaml")
    (sweep,) = online.sweeps
    online.delete_sweep(sweep)
    code, _, err = say("agent")
    assert code == 2
    assert f"no sweep {sweep}" in err and "deleted" in err


def test_a_sweep_that_the_server_refuses_leaves_nothing(say: Say, online: StandIn) -> None:
    online.faults.error("UpsertSweep", "invalid sweep config: too many parameters")
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "too many parameters" in err
    assert not list(Path(".fersweep").glob("sweeps/*"))


@pytest.mark.parametrize("words", [("--max-gap", "0.1"), ("--seed", "3"), ("--storage", "sqlite:///x.db")])
def test_options_of_the_embedded_search_are_refused_for_a_server(
    say: Say, online: StandIn, words: tuple[str, str]
) -> None:
    code, _, err = say("create", "sweep.yaml", "--search", "wandb", *words)
    assert code == 2
    assert "--search optuna" in err
    code, out, _ = say("create", "sweep.yaml", "--json", *words)
    assert (code, json.loads(out)["search"]) == (0, "optuna"), "the default is the search that knows the option"


def test_offline_runs_are_refused_for_a_sweep_on_a_server(
    say: Say, online: StandIn, tiny_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("create", "sweep.yaml")
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, err = say("agent")
    assert code == 2
    assert "learns of trials from their runs" in err and "WANDB_MODE" in err


@pytest.mark.parametrize("version", [None, "0.17.0"])
def test_wandb_not_installed_or_too_old_is_refused(
    say: Say, online: StandIn, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    module = ModuleType("wandb")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module if version else None)  # type: ignore[arg-type]
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "pip install 'wandb>=0.31'" in err
    monkeypatch.undo()


def test_option_environment_and_file_name_entity_and_project_in_that_order(
    say: Say, online: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(*words: str) -> tuple[str, str]:
        code, _, err = say("create", "sweep.yaml", *words)
        assert code == 0, err
        sweep = list(online.sweeps.values())[-1]
        return sweep.entity, sweep.project

    assert place() == ("tester", "fersweep")
    Path("sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "entity": "lab", "project": "from-file"}))
    assert place() == ("lab", "from-file")
    monkeypatch.setenv("WANDB_PROJECT", "from-environment")
    monkeypatch.setenv("WANDB_ENTITY", "tester")
    assert place() == ("tester", "from-environment")
    assert place("--entity", "lab", "--project", "from-option") == ("lab", "from-option")


def test_doctor_checks_the_login(say: Say, online: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[bool, str]:
        _, out, _ = say("doctor", "--json")
        (line,) = (finding for finding in json.loads(out) if finding["topic"] == "W&B")
        return line["ok"], line["found"]

    assert found() == (True, f"online: tester on {online.url}")
    monkeypatch.setenv("WANDB_API_KEY", LOCAL_KEY)
    ok, text = found()
    assert not ok and "does not know this API key" in text
    online.faults.offline()
    ok, text = found()
    assert not ok and "no answer" in text
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    ok, text = found()
    assert not ok and "WANDB_MODE=sometimes" in text


def test_a_run_in_a_folder_where_another_process_trains_is_refused_and_not_started(
    say: Say, online: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stock agent that starts a run a second time."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "run")
    folder = trial_folder("sweep", "run")
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = say("train", "--model=simple_cnn", "--data=tiny", "--epochs=1")
    assert code == 1
    assert "another process trains in" in err
    assert not online.runs
