"""best, confirm and test on finished sweeps: which model is chosen, and the one look at its test split."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fer_sweep import api
from fer_sweep.files import home, sweep_folder, trial_folder
from fer_sweep.records import TrialOutcome
from tests.support.processes import on_one_core
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter, train_all, train_for_real
from tests.support.shell import Shell

pytestmark = pytest.mark.usefixtures("one_core")

FILE = """\
program: fersweep
method: grid
metric: {{name: best_val_acc, goal: maximize}}
parameters:
  model: {{value: {model}}}
  data: {{value: whole}}
  epochs: {{value: {epochs}}}
  batch_size: {{value: 16}}
  lr: {{values: [0.005, 0.00001]}}
  {sizes}
"""
SIZES = {"deeper_cnn": "width: {value: 4}", "simple_cnn": "channels: {value: 4}\n  hidden: {value: 16}"}
EPOCHS = {"deeper_cnn": 6, "simple_cnn": 3}
"""With fewer, both collapse, and there is no winner."""
HERE = ("--gpus", "none", "--slots", "1")


def write(folder: Path, model: str) -> Path:
    file = folder / f"{model}.yaml"
    file.write_text(FILE.format(model=model, sizes=SIZES[model], epochs=EPOCHS[model]))
    return file


@pytest.fixture(scope="session")
def home_with_sweeps(tmp_path_factory: pytest.TempPathFactory, whole_cache: Path) -> tuple[Path, str, str]:
    """A home with two finished sweeps, of two DeeperCNNs and of two SimpleCNNs, with their weights."""
    folder = tmp_path_factory.mktemp("searched")
    ids = {}
    with on_one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_HOME", str(folder / ".fersweep"))
        patch.setenv("FERSWEEP_CACHE", str(whole_cache))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr("fer_sweep.agent.session.TrialStarter", lambda models: ScriptedStarter(train_for_real))
        for model in SIZES:
            sweep = api.create(write(folder, model))
            sweep.agent(gpus="none", slots=1)
            ids[model] = sweep.id
    return folder / ".fersweep", ids["simple_cnn"], ids["deeper_cnn"]


@pytest.fixture
def both(home_with_sweeps: tuple[Path, str, str], whole_data: str, played_trials: ScriptedStarter) -> tuple[str, str]:
    """The sweeps of SimpleCNN, searched last, and of DeeperCNN, in the test's own home; further trials are played."""
    there, simple, deeper = home_with_sweeps
    shutil.copytree(there, home())
    played_trials.script = by_seed
    return simple, deeper


@pytest.fixture
def searched(both: tuple[str, str]) -> str:
    """The sweep searched last."""
    return both[0]


def by_seed(trial: PlayedTrial) -> TrialOutcome:
    """Train to an accuracy that depends on the seed."""
    outcome = train_all(trial)
    assert outcome.result is not None
    accuracy = 0.5 + trial.job.config.seed % 7 / 100
    return replace(outcome, result=outcome.result.model_copy(update={"best_val_acc": accuracy}))


def test_best_explains_its_choice_and_warns(shell: Shell, searched: str) -> None:
    document = shell.json("best")
    assert {"winner", "pareto", "ranking", "architectures", "warnings"} <= set(document)
    assert document["winner"]["sweep"] == searched
    assert document["winner"]["verdict_reason"]
    assert set(document["architectures"]) == {"simple_cnn"}
    assert document["architectures"]["simple_cnn"]["winner"] == document["winner"]
    (edge,) = [warning for warning in document["warnings"] if warning["kind"] == "edge"]
    assert "lr 0.005" in edge["message"] and "upper end" in edge["message"]
    _, out, err = shell("best")
    assert "why:" in out and "careful:" in out
    assert document["winner"]["verdict_reason"] in " ".join(out.split())
    assert f"fersweep confirm {searched}" in err


def test_best_of_two_architectures_names_both_winners(shell: Shell, both: tuple[str, str]) -> None:
    searched, other = both
    document = shell.json("best", searched, other)
    assert set(document["architectures"]) == {"deeper_cnn", "simple_cnn"}
    assert {found["winner"]["sweep"] for found in document["architectures"].values()} == {searched, other}
    assert len(document["ranking"]) == 4
    assert "each architecture by itself" in shell("best", searched, other)[1]


def test_confirm_trains_further_seeds_once_and_gives_their_mean(shell: Shell, searched: str) -> None:
    document = shell.json("confirm", "--seeds", "2", *HERE)
    (found,) = document["confirmed"]
    winner = shell.json("best")["winner"]  # of the last sweep that was searched, not of the one that confirms it
    assert found["trial"] == f"{searched}/{winner['id']}"
    assert found["sweep"] == f"confirm-{searched}-{winner['id']}"
    assert found["seeds"] == [1000, 1001]
    accuracies = [result["best_val_acc"] for result in found["results"].values()]
    mean = found["best_val_acc"]
    assert mean["count"] == 2
    assert mean["mean"] == pytest.approx(sum(accuracies) / 2)
    assert mean["low"] < mean["mean"] < mean["high"]
    assert found["when_chosen"] == winner["metrics"]["best_val_acc"]
    assert found["optimism"] == pytest.approx(found["when_chosen"] - mean["mean"])
    status = shell.json("status", found["sweep"])
    assert [trial["config"]["seed"] for trial in status["trials"]] == [1000, 1001]
    assert status["state"] == "finished"

    code, out, err = shell("confirm", "--seeds", "2", *HERE)
    assert code == 0, err
    assert "when chosen" in out and "too high on average" in " ".join(out.split())
    assert shell.json("status", found["sweep"]) == status, "nothing is trained again"
    assert shell.json("confirm", found["sweep"], "--seeds", "3", *HERE)["confirmed"][0]["seeds"] == [1000, 1001, 1002]


def test_a_confirmation_of_a_named_trial_that_is_only_created_is_any_agents_work(shell: Shell, searched: str) -> None:
    (made,) = shell.json("confirm", "--trial", "1", "--seeds", "1", "--create-only")["sweeps"]
    assert made == f"confirm-{searched}-1"
    assert shell.json("status", made)["trials"] == []
    code, _, err = shell("agent", made, *HERE)
    assert code == 0 and f"next: fersweep confirm {made}" in err
    (found,) = shell.json("confirm", made, *HERE)["confirmed"]
    assert (found["best_val_acc"]["count"], found["best_val_acc"]["low"]) == (1, None)
    assert "no interval" in shell("confirm", made, *HERE)[1]
    for words, message in ((("--trial", "77"), "0, 1"), ((searched, made, "--trial", "1"), "one sweep")):
        code, _, err = shell("confirm", *words)
        assert code == 2 and message in err


def test_an_interrupted_confirm_resumes(searched: str, shell: Shell, played_trials: ScriptedStarter) -> None:
    def interrupted(trial: PlayedTrial) -> TrialOutcome:
        outcome = by_seed(trial)
        if len(played_trials.jobs) == 2:
            os.kill(os.getpid(), signal.SIGINT)  # once: this trial is finished, no other is started
        return outcome

    played_trials.script = interrupted
    words = ("confirm", "--seeds", "4", *HERE)
    code, _, err = shell(*words)
    assert code == 130, err
    assert "goes on where this one stopped" in err
    before = shell.json("status", f"confirm-{searched}-0")["trials"]
    assert [trial["state"] for trial in before] == ["complete"] * 2
    played_trials.script = by_seed
    (found,) = shell.json(*words)["confirmed"]
    assert found["best_val_acc"]["count"] == 4
    assert shell.json("status", found["sweep"])["trials"][:2] == before


def test_several_confirmed_sweeps_are_compared_seed_by_seed(shell: Shell, both: tuple[str, str]) -> None:
    words = ("confirm", *both, "--seeds", "2", *HERE)
    document = shell.json(*words)
    (comparison,) = document["comparisons"]
    assert comparison["seeds"] == [1000, 1001]
    first, second = document["confirmed"]
    expected = [first["results"][s]["best_val_acc"] - second["results"][s]["best_val_acc"] for s in ("1000", "1001")]
    assert comparison["difference"]["mean"] == pytest.approx(sum(expected) / 2)
    _, out, _ = shell(*words)
    assert "paired" in out and comparison["meaning"] in " ".join(out.split())


def test_the_test_split_is_opened_once_and_again_only_on_request(shell: Shell, searched: str) -> None:
    found = shell.json("test", "--tta", "flip")
    assert found["images"] == 35
    assert found["clean"]["images"] == 28
    assert found["is_private_test"] is True
    assert found["accuracy"] == found["right"] / 35
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    assert set(found["per_class_recall"]) == {"angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"}
    assert (found["opened"], found["before"]) == (1, [])
    assert found["tta"] == "flip"

    for other in ((), ("--trial", "1")):
        code, out, err = shell("test", *other)
        assert (code, out) == (2, "")
        assert "opened once already" in err and found["model"] in err and "--again" in err

    code, out, err = shell("test", "--again", "--tta", "tencrop")
    assert code == 0, err
    text = " ".join(out.split())
    assert "opened 2 times" in text and f"before: {found['model']}" in text
    assert "Wilson 95 %" in text and "surprise" in text
    lines = [json.loads(line) for line in (sweep_folder(searched) / "tests.jsonl").read_text().splitlines()]
    assert [(line["averaging"], line["again"]) for line in lines] == [("flip", False), ("tencrop", True)]
    assert {line["model"] for line in lines} == {found["model"]}


def test_a_folder_is_tested_in_place_and_on_other_data_on_request(shell: Shell, searched: str) -> None:
    folder = trial_folder(searched, "0")
    assert shell("test", "--folder", str(folder), "--data", "nowhere")[0] == 2
    assert not (home() / "tests.jsonl").exists()
    found = shell.json("test", "--folder", str(folder), "--data", "whole")
    assert (found["folder"], found["data"]) == (str(folder), "whole")
    assert (folder / "tests.jsonl").is_file()


def test_the_test_says_whether_the_choice_was_confirmed(shell: Shell, searched: str) -> None:
    _, out, err = shell("test")
    assert "nobody confirmed" in err
    assert "opened for the first time" in out
    shell.json("confirm", "--seeds", "2", *HERE)
    assert shell.json("test", "--again")["confirmed"]["count"] == 2
    _, out, err = shell("test", "--again")
    assert "mean over 2 further seeds" in out
    assert "nobody confirmed" not in err


def test_data_without_a_test_split_says_where_to_get_one(shell: Shell, trained: Path) -> None:
    code, _, err = shell("test", "--folder", str(trained))
    assert code == 2
    assert "no test images" in err and "--data" in err


@pytest.mark.parametrize("words", [("test",), ("predict", "face.png"), ("export", "-o", "out")])
def test_a_model_on_another_host_is_refused(shell: Shell, searched: str, words: tuple[str, ...]) -> None:
    shutil.rmtree(trial_folder(searched, shell.json("best")["winner"]["id"]))
    code, _, err = shell(*words)
    assert code == 2
    assert "host that trained it" in err


def test_a_result_that_cannot_be_recorded_is_not_shown(shell: Shell, searched: str) -> None:
    (home() / "tests.jsonl").mkdir()
    code, out, err = shell("test")
    assert (code, out) == (1, "")
    assert "tests.jsonl" in err and "Traceback" not in err
