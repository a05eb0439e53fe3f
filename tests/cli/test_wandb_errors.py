"""What a person is told when W&B says no, or says nothing: a sentence, a next step, an exit code, and never the key."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from fer_sweep.cli import main
from tests.support.scripted_search import TINY
from tests.support.standin.server import StandIn

PARAMETERS = {name: {"value": value} for name, value in TINY.items()}
SWEEP = {"method": "random", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": PARAMETERS}
LOCAL_KEY = "local-" + "7" * 40

Said = tuple[int, str, str]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command here: exit code, stdout, stderr."""
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP))

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["fersweep", *words])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_no_key(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "no API key" in err
    assert "wandb login" in err and "--search optuna" in err


def test_without_a_login_the_search_is_embedded(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    code, out, err = say("create", "sweep.yaml", "--json")
    assert code == 0, err
    assert (json.loads(out)["search"], json.loads(out)["url"]) == ("optuna", None)


def test_wrong_key(say: Callable[..., Said], online: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", LOCAL_KEY)
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "does not know this API key" in err and "wandb login --relogin" in err
    assert LOCAL_KEY not in err


def test_no_permission(say: Callable[..., Said], online: StandIn) -> None:
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
def test_a_sweep_that_is_not_there(say: Callable[..., Said], online: StandIn, sweep: str, needle: str) -> None:
    online.create_sweep({"program": "x", **SWEEP}, project="faces")
    code, _, err = say("agent", sweep)
    assert code == 2
    assert needle in err and "hint:" in err


def test_server_gone(
    say: Callable[..., Said], online: StandIn, tiny_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.search.wandb_transport.time.sleep", lambda seconds: None)  # between the tries
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


def test_an_address_that_is_no_wandb_server(
    say: Callable[..., Said], online: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.faults.fail("*", status=200, body="<html>welcome</html>")
    code, _, err = say("create", "sweep.yaml")
    assert code == 1
    assert "did not answer" in err and "WANDB_BASE_URL" in err


def test_a_sweep_deleted_on_its_page(say: Callable[..., Said], online: StandIn, tiny_data: str) -> None:
    say("create", "sweep.yaml")
    (sweep,) = online.sweeps
    online.delete_sweep(sweep)
    code, _, err = say("agent")
    assert code == 2
    assert f"no sweep {sweep}" in err and "deleted" in err


def test_a_file_that_the_server_refuses(say: Callable[..., Said], online: StandIn) -> None:
    online.faults.error("UpsertSweep", "invalid sweep config: too many parameters")
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "too many parameters" in err
    assert not list(Path(".fersweep").glob("sweeps/*"))


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (("--max-gap", "0.1"), "--search optuna"),
        (("--seed", "3"), "--search optuna"),
        (("--storage", "sqlite:///x.db"), "--search optuna"),
    ],
)
def test_what_a_server_cannot_do(say: Callable[..., Said], online: StandIn, words: list[str], needle: str) -> None:
    code, _, err = say("create", "sweep.yaml", "--search", "wandb", *words)
    assert code == 2
    assert needle in err
    code, out, _ = say("create", "sweep.yaml", "--json", *words)
    assert (code, json.loads(out)["search"]) == (0, "optuna"), "left out, the search that can do it is taken"


def test_runs_that_would_not_reach_the_server_that_searches(
    say: Callable[..., Said], online: StandIn, tiny_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("create", "sweep.yaml")
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, err = say("agent")
    assert code == 2
    assert "learns of trials from their runs" in err and "WANDB_MODE" in err


@pytest.mark.parametrize("version", [None, "0.17.0"])
def test_wandb_missing_or_too_old(
    say: Callable[..., Said], online: StandIn, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    module = ModuleType("wandb")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module if version else None)  # type: ignore[arg-type]
    code, _, err = say("create", "sweep.yaml")
    assert code == 2
    assert "pip install 'wandb>=0.31'" in err
    monkeypatch.undo()


def test_the_order_of_entity_and_project(
    say: Callable[..., Said], online: StandIn, monkeypatch: pytest.MonkeyPatch
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


def test_doctor_tries_the_login(say: Callable[..., Said], online: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
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
