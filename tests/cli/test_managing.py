"""Commands that manage sweeps: list, status --watch, logs, rename, delete; and what ``run`` checks first."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep.agent.draining import Drains
from fer_sweep.cli.managing import show_log
from fer_sweep.cli.sweeps import watch_sweep
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.sweeps import known
from fer_sweep.version import __version__
from tests.cli.conftest import write_sweep
from tests.search.conftest import take
from tests.support.records import make_result
from tests.support.searches import find

COMPLETE = TrialOutcome(TrialState.COMPLETE, make_result(best_val_acc=0.625))
FAILED = TrialOutcome(TrialState.FAILED, reason="no such weights")


@pytest.fixture
def sweep(shell, tiny_data):
    """A sweep of two trials, named `mine`, and its search."""
    shell("create", write_sweep(trials=2), "--name", "mine")
    opened = find("mine")
    with closing(opened.search()) as search:
        yield opened, search


def test_the_version_is_printed_also_by_the_module():
    done = subprocess.run([sys.executable, "-m", "fer_sweep", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fersweep {__version__}\n"


def test_sweeps_are_listed_renamed_and_deleted(shell, sweep):
    opened, search = sweep
    search.finish(take(search).trial_id, COMPLETE)
    (one,) = shell.json("list")
    assert {"sweep": opened.id, "name": "mine", "state": "running", "trials": 1, "planned": 2}.items() <= one.items()
    code, out, err = shell("list")
    assert code == 0 and all(word in out for word in ("mine", opened.id, "62.5 %", "tiny", "1/2"))
    assert f"next: fersweep status {opened.id}" in err
    assert shell("rename", "mine", "yours")[1] == f"sweep {opened.id}: yours\n"
    assert shell("delete", "mine")[0] == shell("delete", "sweep.yaml")[0] == 2
    code, out, _ = shell("delete", "yours")
    assert code == 0 and f"sweep {opened.id} (yours) deleted" in out
    assert (shell("list")[0], shell.json("list")) == (3, [])


def test_in_a_terminal_delete_asks_first(shell, sweep, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda text, err: False)
    assert shell("delete", "mine")[0] == 3 and len(known()) == 1
    assert shell("delete", "mine", "--yes")[0] == 0 and not known()


def test_status_tells_a_sweep_that_an_agent_trains_from_one_that_waits_for_an_agent(shell, sweep):
    opened, search = sweep
    assert "(mine): running, no agent" in shell("status", "mine")[1]
    with Drains(opened.folder, ["cpu0"]):
        shell("pause", "mine")
        assert "(mine): paused, 1 agent waiting" in shell("status", "mine")[1]
        found = shell.json("status", "mine")
        assert (found["agents"], found["waiting"], shell.json("list")[0]["agents"]) == (1, 1, 1)
        shell("resume", "mine")
    take(search)
    assert "(mine): running, 1 agent" in shell("status", "mine")[1]
    assert shell.json("status", "mine")["agents"] == 1
    shell("pause", "mine")
    assert "(mine): paused, 1 agent" in shell("status", "mine")[1]


def test_a_watched_sweep_is_shown_where_it_has_changed_until_it_ends(shell, sweep, capsys):
    opened, search = sweep
    trials = [take(search).trial_id for _ in range(2)]

    def wait(seconds: float) -> None:
        if trials:
            search.finish(trials.pop(), COMPLETE)
        else:
            assert search.next_trial("cpu0") is None  # finishes the sweep

    assert watch_sweep(opened, wait).state == "finished"
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("): ")[2] for line in lines[:2]] == [
        "running, 1 agent; 0 of 2 trials ended, 2 running",
        "running, 1 agent; 1 of 2 trials ended, 1 running; best_val_acc 62.50 %",
    ]
    assert "finished; 2 of 2 trials ended" in lines[-1]
    assert shell("status", "mine", "--watch", "--json")[0] == 2


def test_a_log_is_followed_to_the_end_of_its_trial_and_says_why_it_failed(shell, sweep, capsys):
    opened, search = sweep
    trial = take(search).trial_id
    log = opened.trial_folder(trial) / "trial.log"
    log.parent.mkdir(parents=True)
    steps = iter(
        (
            lambda: log.write_text("loading\n"),
            lambda: search.report(trial, 1, {"epoch": 1.0, "val_acc": 0.25}),
            lambda: [log.write_text("loading\nred \x1b[31m\n"), search.finish(trial, FAILED)],
        )
    )
    record = show_log(opened, trial, follow=True, wait=lambda seconds: next(steps)())
    assert record.state == "failed"
    assert capsys.readouterr().out.splitlines() == ["loading", "epoch 1: val_acc 0.25", "red \\x1b[31m"]
    for words in (["0"], ["mine/0"], ["0", "--sweep", "mine"]):
        code, out, err = shell("logs", *words)
        assert code == 0 and out.endswith("trial 0 failed: no such weights\n")
        assert f"next: fersweep retry {opened.id}" in err
    log.unlink()
    assert "note: no log in" in shell("logs", "0")[2]
    code, _, err = shell("logs", "7")
    assert code == 2 and "its trials: 0" in err
    assert shell("logs", "mine/0", "--sweep", "mine")[0] == 2


def test_a_watch_ends_when_its_reader_has_left(sweep, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stdout = os.fdopen(writer, "w")
    monkeypatch.setattr("sys.stdout", stdout)
    assert watch_sweep(sweep[0], lambda seconds: pytest.fail("it watches on")).state == "running"
    stdout.close()  # has nothing left to write, which would be an error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--data nosuch", "no data set 'nosuch' has been prepared"),
        ("--gpus 7", "unknown GPU '7'"),
        ("--gpus none --slots 4096", "slots 4096: this host has"),
        ("--per-gpu many", "--per-gpu many: not a number"),
        ("--set lr=fast", "lr"),
    ],
)
def test_run_creates_no_sweep_that_it_cannot_train(shell, tiny_data, monkeypatch, options, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, _, err = shell("run", write_sweep(), *options.split())
    assert code == 2 and said in err
    assert not known()


@pytest.mark.parametrize("search", ["optuna", "wandb"])
def test_run_creates_no_sweep_with_a_wrong_key_or_runs_that_its_server_will_not_see(
    shell, tiny_data, online, monkeypatch, search
):
    if search == "optuna":
        monkeypatch.setenv("WANDB_API_KEY", "local-" + "7" * 40)
    else:
        monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, err = shell("run", write_sweep(), "--search", search)
    assert code == 2 and ("API key" if search == "optuna" else "runs are offline") in err
    assert not known() and not online.sweeps


def test_create_notes_a_data_set_that_is_not_prepared(shell, tiny_data):
    code, _, err = shell("create", write_sweep(), "--data", "nosuch")
    assert code == 0 and "note: no data set 'nosuch' has been prepared: prepare it (fersweep data prepare" in err
    assert "note:" not in shell("create", "sweep.yaml")[2]
    assert shell("create", "sweep.yaml", "--name", " ")[0] == 2
    assert len(list(Path(".fersweep/sweeps").iterdir())) == 2
