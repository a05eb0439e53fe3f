"""best, confirm and test on finished sweeps: which model is chosen."""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fer_sweep.config.arguments import parse_arguments
from fer_sweep.config.trial import parse_trial
from fer_sweep.files import home, sweep_folder, trial_folder
from fer_sweep.records import CLASSES, TrialOutcome, TrialState
from tests.cli.conftest import write_sweep
from tests.support.records import make_result
from tests.support.scripted_starter import PlayedTrial, train_all
from tests.support.walk import Walk

pytestmark = pytest.mark.usefixtures("one_core")

HERE = ("--gpus", "none", "--slots", "1")


def by_seed(trial: PlayedTrial) -> TrialOutcome:
    """Train to an accuracy that depends on the seed."""
    outcome = train_all(trial)
    assert outcome.result is not None
    accuracy = 0.5 + trial.job.config.seed % 7 / 100
    return replace(outcome, result=outcome.result.model_copy(update={"best_val_acc": accuracy}))


@pytest.fixture(autouse=True)
def further_trials(played_trials):
    played_trials.script = by_seed
    return played_trials


def test_best_explains_its_choice_and_warns(shell, both):
    winner = shell.json("best")["winner"]
    assert winner["sweep"] == both[0]
    _, out, err = shell("best")
    assert out.startswith("winner: trial") and "\nwhy: " in out and f"fersweep confirm {both[0]}" in err
    text = " ".join(shell("best", "--all")[1].split())
    assert winner["verdict_reason"] in text and "in every trial: model=simple_cnn" in text
    assert "has lr 0.005, at the upper end" in text
    document = shell.json("best", *both)
    assert {found["winner"]["sweep"] for found in document["architectures"].values()} == set(both)
    assert len(document["ranking"]) == 4
    assert "winner of each architecture" in shell("best", *both)[1]


def test_best_ranks_collapsed_trials_of_which_only_a_named_one_is_chosen(shell, tiny_data, played_trials):
    played_trials.script = lambda trial: TrialOutcome(TrialState.COMPLETE, make_result(verdict="collapsed"))
    sweep = shell.json("create", write_sweep(trials=2))["sweep"]
    shell("agent", *HERE)
    code, out, err = shell("best")
    assert code == 3 and out.count("collapsed") == 2 and "winner: trial" not in out
    assert f"error: every trial collapsed: {sweep}" in err and "with --trial" in err
    assert shell("best", "--json")[:2] == (3, "")
    assert shell("confirm", "--create-only")[0] == 3
    assert shell("confirm", "--trial", "0", "--create-only")[0] == 0


def test_sweeps_of_different_data_have_no_winner(shell, searched, tiny_cache, tmp_path):
    shutil.copytree(tiny_cache, tmp_path / "cache", dirs_exist_ok=True)
    other = shell.json("create", write_sweep())["sweep"]
    shell("agent", *HERE)
    code, _, err = shell("best", searched, other)
    assert code == 2 and "different data" in err and "hint: name sweeps of one data set" in err
    anyway = err.partition("anyway: fersweep ")[2].split()
    code, out, _ = shell(*anyway)
    assert anyway == ["best", searched, other, "--anyway"] and code == 0
    assert out.startswith("warning: these trials were measured on different data") and "winner: trial" in out


def test_many_trials_of_many_parameters_fit_a_screen_unless_all_are_asked_for(
    shell, tiny_data, played_trials, monkeypatch
):
    played_trials.script = lambda trial: TrialOutcome(
        TrialState.COMPLETE, make_result(best_val_acc=0.5 - int(trial.trial_id) / 1000)
    )
    file = Path(write_sweep(trials=12))
    names = ("label_smoothing", "dropout", "weight_decay", "augment.shift", "augment.erasing", "lr")
    ranges = "".join(f"  {name}: {{min: 0.0001, max: 0.1}}\n" for name in names)
    file.write_text(
        file.read_text().partition("  lr:")[0].replace("channels: {value: 4}", "channels: {values: [2, 4]}")
    )
    file.write_text(file.read_text().replace("hidden: {value: 8}", "hidden: {values: [8, 16]}") + ranges)
    shell("create", str(file))
    shell("agent", *HERE)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    _, out, err = shell("best")
    assert len((out + err).splitlines()) < 24 and out.count(" balanced ") == 10 and out.count("\nwarning: ") == 1
    assert re.findall(r"verdict +(.*)\x1b", out)[0].split() == ["lr", "weight_decay", "dropout", "hidden"], "lr first"
    _, out, _ = shell("best", "--all")
    assert out.count(" balanced ") == 12 and out.count("augment.erasing=") == 12 and out.count("\nwarning: ") > 1
    _, out, err = shell("status")
    assert len((out + err).splitlines()) < 24 and "\n--all also shows dropout, " in out
    assert shell("status", "--all")[1].count("augment.erasing=") == 12


@pytest.mark.parametrize(
    ("metric", "words"), [("macro_f1", "lowest macro_f1, 0.41"), ("val_loss", "lowest val_loss, 1.4")]
)
def test_the_metric_of_the_sweep_file_decides(shell, tiny_data, played_trials, metric, words):
    def script(trial: PlayedTrial) -> TrialOutcome:
        trial.train(trial.job.config.epochs)
        number = int(trial.trial_id)
        return TrialOutcome(
            TrialState.COMPLETE, make_result(best_val_acc=(0.6, 0.5)[number], macro_f1=(0.43, 0.41)[number])
        )

    played_trials.script = script
    file = Path(write_sweep(trials=2))
    file.write_text(file.read_text().replace("best_val_acc, goal: maximize", f"{metric}, goal: minimize"))
    shell("create", str(file))
    shell("agent", *HERE)
    document = shell.json("best")
    assert (document["metric"], document["winner"]["id"]) == (metric, "1" if metric == "macro_f1" else "0")
    out = shell("best")[1]
    assert f"why: it has the {words}" in out and f"trials by {metric} (" in out


def test_the_winner_is_printed_as_a_sweep_file_and_as_a_command(shell, searched):
    winner = shell.json("best")["winner"]
    code, text, _ = shell("best", "--yaml")
    assert code == 0
    Path("winner.yaml").write_text(text)
    made = shell.json("create", "winner.yaml")["sweep"]
    shell("agent", made, *HERE)
    (trial,) = shell.json("status", made)["trials"]
    assert trial["config"] == winner["config"]
    (command,) = [line for line in text.splitlines() if line.startswith("# fersweep train")]
    arguments = parse_arguments(shlex.split(command)[3:])
    assert parse_trial(arguments).model_dump(mode="json") == winner["config"]


@pytest.mark.parametrize("width", [80, 100])
def test_no_command_breaks_a_word_in_a_narrow_terminal(shell, both, monkeypatch, width):
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    names = " ".join(both)
    shell("confirm", *both, "--seeds", "2", *HERE)
    shell("test")
    commands = [f"best {names} --all", f"status {both[0]}", f"confirm {names}", "test --again"]
    for command in (*commands, "data list", "data audit whole", "doctor", "validate vit", "--help", "train --help"):
        shown = {}
        for columns in (width, 10_000):
            monkeypatch.setenv("COLUMNS", str(columns))
            _, out, err = shell(*command.split())
            lines = re.sub(r"\x1b\[\d*m", "", out + err).partition("opened")[0].splitlines()
            shown[columns] = {word.rstrip(",") for line in lines for word in line.split() if set(word) != {"-"}}
            too_long = [line for line in lines if columns == width < len(line) and not re.search(r"\S{50}", line)]
            assert not too_long, command
        # A cell that has moved below its row speaks for itself.
        assert shown[10_000] - shown[width] <= {"configuration", "parameters", "note", "what", "to", "do"}, command


def test_confirm_trains_further_seeds_once_in_spite_of_an_interrupt_and_gives_their_mean(
    shell, searched, further_trials
):
    def interrupted(trial: PlayedTrial) -> TrialOutcome:
        os.kill(os.getpid(), signal.SIGINT)  # once: this trial is finished, no other is started
        return by_seed(trial)

    words = ("confirm", "--seeds", "2", *HERE)
    further_trials.script = interrupted
    code, _, err = shell(*words)
    assert code == 130 and "the same command resumes it" in err
    further_trials.script = by_seed
    (found,) = shell.json(*words)["confirmed"]
    assert [job.config.seed for job in further_trials.jobs] == found["seeds"] == [1000, 1001]
    winner = shell.json("best")["winner"]  # of the last sweep that was searched, not of the one that confirms it
    assert found["trial"] == f"{searched}/{winner['id']}"
    assert found["sweep"] == f"confirm-{searched}-{winner['id']}"
    mean = found["best_val_acc"]
    assert (mean["count"], mean["mean"]) == (2, pytest.approx(0.5 + (1000 % 7 + 1001 % 7) / 200))
    assert found["optimism"] == pytest.approx(winner["metrics"]["best_val_acc"] - mean["mean"])

    _, out, _ = shell(*words)
    assert "in the search" in out and "too high on average" in " ".join(out.split())
    _, out, err = shell("best")
    assert "confirmed: mean over 2 further seeds" in " ".join(out.split())
    assert f"next: fersweep test {searched} --trial {winner['id']}" in err
    assert len(further_trials.jobs) == 2, "nothing is trained again"
    assert shell.json("confirm", found["sweep"], "--seeds", "3", *HERE)["confirmed"][0]["seeds"] == [1000, 1001, 1002]


def test_a_confirmation_of_a_named_trial_that_is_only_created_is_any_agents_work(shell, searched):
    assert shell("confirm", "--trial", "1", "--gpus", "77")[0] == 2 and len(shell.json("list")) == 2, "none is created"
    (made,) = shell.json("confirm", "--trial", "1", "--seeds", "1", "--create-only")["sweeps"]
    assert shell.json("status", made)["trials"] == []
    code, _, err = shell("agent", made, *HERE)
    assert code == 0 and f"next: fersweep confirm {made}" in err
    (found,) = shell.json("confirm", made, *HERE)["confirmed"]
    assert (found["trial"], found["best_val_acc"]["count"]) == (f"{searched}/1", 1)
    assert "no interval" in shell("confirm", made, *HERE)[1]
    for words, message in ((("--trial", "77"), "0, 1"), ((searched, made, "--trial", "1"), "one sweep")):
        code, _, err = shell("confirm", *words)
        assert code == 2 and message in err


def test_several_confirmed_sweeps_are_compared_seed_by_seed(shell, both):
    words = ("confirm", *both, "--seeds", "2", *HERE)
    (comparison,) = shell.json(*words)["comparisons"]
    assert comparison["seeds"] == [1000, 1001]
    _, out, _ = shell(*words)
    assert "paired" in out and comparison["meaning"] in " ".join(out.split())


def test_the_test_split_is_opened_once_and_again_only_on_request(shell, searched):
    found = shell.json("test", "--tta", "flip")
    assert (found["images"], found["clean"]["images"], found["is_private_test"]) == (35, 28, True)
    assert found["accuracy"] == found["right"] / 35
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    assert list(found["per_class_recall"]) == list(CLASSES)
    assert (found["opened"], found["before"], found["tta"], found["confirmed"]) == (1, [], "flip", None)
    for other in ((), ("--trial", "1")):
        code, out, err = shell("test", *other)
        assert (code, out) == (2, "") and "not confirmed" in err
        assert "opened once already" in err and found["model"] in err and "--again" in err

    shell.json("confirm", "--seeds", "2", *HERE)
    code, out, err = shell("test", "--again", "--tta", "tencrop")
    assert code == 0 and "not confirmed" not in err
    text = " ".join(out.split())
    assert "opened 2 times" in text and f"before: {found['model']}" in text
    for used in (err, shell("best")[2]):
        assert [line.split()[2] for line in used.splitlines() if line.startswith("next:")] == [
            "report",
            "export",
            "predict",
        ]
    assert "Wilson 95 %" in text and "surprise" in text and "mean over 2 further seeds" in text
    lines = [json.loads(line) for line in (sweep_folder(searched) / "tests.jsonl").read_text().splitlines()]
    assert [(line["averaging"], line["again"]) for line in lines] == [("flip", False), ("tencrop", True)]


def test_each_hint_leads_on_to_the_test_and_past_it(shell, searched):
    walk = Walk(shell, weights=True)
    walk.from_("best")
    assert [step.split()[0] for step in walk.steps] == ["best", "confirm", "test", "report"]
    for command in ("best", "confirm", "status", "agent"):
        walk.from_(command)
    assert walk.steps[4:6] == ["best (0)", f"report {searched} (0)"]


def test_a_folder_is_tested_in_place_on_its_own_or_other_data(shell, trained, tiny_cache, tmp_path):
    shutil.copytree(tiny_cache, tmp_path / "cache", dirs_exist_ok=True)
    for data, message in (("nowhere", "nowhere"), ("tiny", "no test images")):
        code, _, err = shell("test", "--folder", trained, "--data", data)
        assert code == 2 and message in err
    assert not (home() / "tests.jsonl").exists()
    code, out, err = shell("test", "--folder", trained, "--data", "whole")
    assert code == 0 and "opened for the first time" in out, err
    assert Path(trained, "tests.jsonl").is_file()


@pytest.mark.parametrize("words", [("test",), ("predict", "face.png"), ("export", "-o", "out")])
def test_a_model_on_another_host_is_refused(shell, searched, words):
    shutil.rmtree(trial_folder(searched, shell.json("best")["winner"]["id"]))
    code, _, err = shell(*words)
    assert code == 2 and "host that trained it" in err


def test_a_result_that_cannot_be_recorded_is_not_shown(shell, searched):
    (home() / "tests.jsonl").mkdir()
    code, out, err = shell("test")
    assert (code, out) == (1, "")
    assert "tests.jsonl" in err and "Traceback" not in err
