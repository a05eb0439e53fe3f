"""Errors of W&B at the command line; test_troubleshooting provokes those that the pages document."""

import fcntl
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from fer_sweep.files import trial_folder
from tests.cli.conftest import write_sweep
from tests.support.shell import Shell


@pytest.fixture(autouse=True)
def sweep_file():
    write_sweep()


def refused(shell: Shell, *words: str, code: int = 2) -> str:
    """Run a command that prints nothing but an error; gives what it says."""
    ended, out, err = shell(*words)
    assert (ended, out) == (code, ""), err
    assert "Traceback" not in err
    return err


def test_without_a_login_the_search_is_embedded(shell, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    document = shell.json("create", "sweep.yaml")
    assert (document["search"], document["url"]) == ("optuna", None)


@pytest.mark.parametrize(
    ("sweep", "needle"),
    [
        ("tester/nowhere/abcd1234", "no project tester/nowhere"),
        ("tester/faces/abcd1234", "no sweep abcd1234 in tester/faces"),
        ("a/b/c/d", "is not a sweep"),
        ("https://wandb.ai/tester/faces/sweeps/abcd1234", "is not on the server in use"),
        ("abcd1234", "no sweep 'abcd1234'"),
    ],
)
def test_an_unknown_sweep_is_refused(shell, online, sweep, needle):
    online.create_sweep(yaml.safe_load(Path("sweep.yaml").read_text()), project="faces")
    said = refused(shell, "agent", sweep)
    assert needle in said and "hint:" in said


def test_a_server_out_of_reach_is_named(shell, online, tiny_data, monkeypatch):
    monkeypatch.setattr("fer_sweep.wandb_client.transport._LONGEST_WAIT_S", 0.0)
    shell.json("create", "sweep.yaml")
    online.faults.offline()
    for words in (("agent",), ("create", "sweep.yaml"), ("pause",), ("sync",)):
        said = refused(shell, *words, code=1)
        assert f"no answer from the W&B server {online.url}" in said
        assert "WANDB_BASE_URL" in said
    code, out, err = shell("status", "--json")
    assert (code, json.loads(out)["state"]) == (0, "unknown")
    assert "no answer" in err


def test_a_sweep_that_the_server_refuses_leaves_nothing(shell, online):
    said = refused(shell, "create", "sweep.yaml", "--entity", "strangers")
    assert "W&B:" in said and "hint:" in said
    online.faults.error("UpsertSweep", "invalid sweep config: too many parameters")
    assert "too many parameters" in refused(shell, "create", "sweep.yaml")
    online.faults.fail("*", status=200, body="<html>welcome</html>")  # another kind of server
    said = refused(shell, "create", "sweep.yaml", code=1)
    assert "is not JSON" in said and "WANDB_BASE_URL" in said
    assert not online.sweeps and not list(Path(".fersweep").glob("sweeps/*"))


@pytest.mark.parametrize("words", [("--max-gap", "0.1"), ("--seed", "3"), ("--storage", "sqlite:///x.db")])
def test_options_of_the_embedded_search_are_refused_for_a_server(shell, online, words):
    assert "search optuna" in refused(shell, "create", "sweep.yaml", "--search", "wandb", *words)
    assert shell.json("create", "sweep.yaml", *words)["search"] == "optuna", "by default, the one that knows the option"


@pytest.mark.parametrize("version", [None, "0.17.0"])
def test_wandb_not_installed_or_too_old_is_refused(shell, online, monkeypatch, version):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb", version and SimpleNamespace(__version__=version))
        assert "pip install 'wandb>=0.31'" in refused(shell, "create", "sweep.yaml")


def test_option_environment_and_file_name_entity_and_project_in_that_order(shell, online, monkeypatch):
    def place(*words: str) -> tuple[str, str]:
        sweep = online.sweeps[shell.json("create", "sweep.yaml", *words)["sweep"]]
        return sweep.entity, sweep.project

    assert place() == ("tester", "fersweep")
    Path("sweep.yaml").write_text(f"entity: lab\nproject: from-file\n{Path('sweep.yaml').read_text()}")
    assert place() == ("lab", "from-file")
    monkeypatch.setenv("WANDB_PROJECT", "from-environment")
    monkeypatch.setenv("WANDB_ENTITY", "tester")
    assert place() == ("tester", "from-environment")
    assert place("--entity", "lab", "--project", "from-option") == ("lab", "from-option")


def test_doctor_checks_the_login(shell, online, monkeypatch):
    def found() -> tuple[bool, str]:
        (line,) = (finding for finding in shell.json("doctor") if finding["topic"] == "W&B")
        return line["ok"], line["found"]

    assert found() == (True, f"online: tester on {online.url}")
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "7" * 40)
    ok, text = found()
    assert not ok and "does not know this API key" in text
    online.faults.offline()
    ok, text = found()
    assert not ok and "no answer" in text


def test_a_run_that_a_stock_agent_starts_a_second_time_is_refused_and_not_started(shell, online, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "run")
    folder = trial_folder("sweep", "run")
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the process that trains there does
        said = refused(shell, "train", "--model=simple_cnn", "--data=tiny", "--epochs=1", code=1)
    assert "another process trains in" in said
    assert not online.runs
