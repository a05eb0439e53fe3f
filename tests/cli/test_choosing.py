"""best, confirm and test on finished sweeps: which model is chosen, and the one look at its test split."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fer_sweep.files import home, sweep_folder, trial_folder
from fer_sweep.records import CLASSES, TrialOutcome, TrialState
from tests.cli.conftest import write_sweep
from tests.support.records import make_result
from tests.support.scripted_starter import PlayedTrial, train_all

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
    assert "why:" in out and winner["verdict_reason"] in " ".join(out.split())
    assert "careful:" in out and "lr 0.005" in out and "upper end" in " ".join(out.split())
    assert f"fersweep confirm {both[0]}" in err
    document = shell.json("best", *both)
    assert {found["winner"]["sweep"] for found in document["architectures"].values()} == set(both)
    assert len(document["ranking"]) == 4
    assert "each architecture by itself" in shell("best", *both)[1]


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


def test_confirm_trains_further_seeds_once_in_spite_of_an_interrupt_and_gives_their_mean(
    shell, searched, further_trials
):
    def interrupted(trial: PlayedTrial) -> TrialOutcome:
        os.kill(os.getpid(), signal.SIGINT)  # once: this trial is finished, no other is started
        return by_seed(trial)

    words = ("confirm", "--seeds", "2", *HERE)
    further_trials.script = interrupted
    code, _, err = shell(*words)
    assert code == 130 and "goes on where this one stopped" in err
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
    assert "when chosen" in out and "too high on average" in " ".join(out.split())
    _, out, err = shell("best")
    assert "confirmed: mean over 2 further seeds" in " ".join(out.split())
    assert f"next: fersweep test {searched} --trial {winner['id']}" in err
    assert len(further_trials.jobs) == 2, "nothing is trained again"
    assert shell.json("confirm", found["sweep"], "--seeds", "3", *HERE)["confirmed"][0]["seeds"] == [1000, 1001, 1002]


def test_a_confirmation_of_a_named_trial_that_is_only_created_is_any_agents_work(shell, searched):
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
        assert (code, out) == (2, "") and "nobody confirmed" in err
        assert "opened once already" in err and found["model"] in err and "--again" in err

    shell.json("confirm", "--seeds", "2", *HERE)
    code, out, err = shell("test", "--again", "--tta", "tencrop")
    assert code == 0 and "nobody confirmed" not in err
    text = " ".join(out.split())
    assert "opened 2 times" in text and f"before: {found['model']}" in text
    assert "Wilson 95 %" in text and "surprise" in text and "mean over 2 further seeds" in text
    lines = [json.loads(line) for line in (sweep_folder(searched) / "tests.jsonl").read_text().splitlines()]
    assert [(line["averaging"], line["again"]) for line in lines] == [("flip", False), ("tencrop", True)]


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
