"""The commands that steer a sweep: what they print, and that each hint leads on."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import write_sweep
from tests.support.faces import prepare_synthetic


@pytest.fixture
def finished(shell, played_trials):
    """The id of a finished sweep of one trial."""
    prepare_synthetic()
    write_sweep()
    code, out, err = shell("create", "sweep.yaml", "--data", "synthetic")
    assert code == 0, err
    assert shell("agent", "--gpus", "none", "--slots", "1")[0] == 0
    return out.strip()


def follow(shell, text):
    """Run the first command that a message names."""
    return shell(*re.search(r"fersweep (\w+ \w+( --[\w-]+ \+\d+)+)", text)[1].split())


def test_a_finished_sweep_leads_on_by_its_hints(shell, finished):
    code, _, err = shell("resume")
    assert code == 2 and "is finished: it has 1 trial, and its cap is 1" in err
    code, out, err = follow(shell, err)
    assert (code, out) == (0, f"sweep {finished}: running\n  run_cap: 1 -> 11\n"), err
    assert f"next: fersweep agent {finished}" in err
    code, _, err = shell("resume", "--count", "ten")
    assert code == 2 and "--count +10 for ten more" in err


def test_a_spent_budget_leads_on_by_its_hint(shell, finished):
    assert shell("create", "sweep.yaml", "--data", "synthetic", "--budget-epochs", "1")[0] == 0
    assert shell("agent", "--gpus", "none", "--slots", "1")[0] == 0
    code, out, _ = shell("status")
    assert code == 0 and "of 1 epochs are trained; no new trial starts" in out
    code, _, err = shell("enqueue", "--set", "lr=0.5")
    assert code == 2 and ", and its budget is 1" in err
    assert follow(shell, err)[0] == 0


def test_a_configuration_from_a_file_is_checked_by_line_and_trained_next(shell, finished):
    Path("mine.yaml").write_text("lr: 0.5\nchanels: 3\n")
    code, _, err = shell("enqueue", "--config", "mine.yaml")
    assert code == 2 and "mine.yaml, line 2: chanels: no such parameter (did you mean channels?)" in err
    Path("mine.json").write_text(json.dumps({"augment": {"shift": 0.3}}))
    code, out, err = shell("enqueue", finished, "--config", "mine.json", "--set", "lr=0.5")
    assert code == 0 and "1 configuration queued" in out, err
    assert "queued next: 1 configuration" in shell("status")[1]
    assert shell("agent", "--gpus", "none", "--slots", "1")[0] == 0
    trial = shell.json("status")["trials"][1]
    assert (trial["config"]["lr"], trial["config"]["augment"]["shift"]) == (0.5, 0.3)
    code, out, err = shell("extend", f"{finished}/1", "--epochs", "+9")
    assert code == 0 and "9 epochs after" in out, err
    assert shell("enqueue")[0] == 2


def test_an_edit_prints_what_changes_and_what_becomes_of_the_trials(shell, finished):
    code, out, err = shell("edit", "sweep.yaml", finished, "--data", "synthetic", "--set", "epochs=3")
    assert code == 0, err
    assert "epochs: 2 -> 3" in out and "0 of 1 trials are of the new space" in out
    assert "it stays finished: it has 1 trial, and its cap is 1" in err
    assert follow(shell, err)[0] == 0
    code, _, err = shell("edit", "sweep.yaml")
    assert code == 2 and "line " in err and "the data cannot change from synthetic to" in err


def test_a_warm_start_says_what_it_takes(shell, finished):
    code, _, err = shell("create", "sweep.yaml", "--data", "synthetic", "--from", finished)
    assert code == 0 and "begins with 1 configuration of earlier sweeps" in err
