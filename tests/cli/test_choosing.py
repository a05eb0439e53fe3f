"""best, confirm, test, export and predict on finished sweeps: which model is chosen, and what it is used for."""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_sweep import api
from fer_sweep.config.arguments import parse_arguments
from fer_sweep.config.trial import parse_trial
from fer_sweep.files import home, sweep_folder, trial_folder
from fer_sweep.records import CLASSES, TrialOutcome, TrialState
from tests.cli.conftest import write_sweep
from tests.support.processes import on_one_core
from tests.support.records import make_result
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter, train_all, train_for_real
from tests.support.searches import read_only
from tests.support.walk import Walk

pytestmark = pytest.mark.usefixtures("one_core")

GRID = """\
program: fersweep
method: grid
metric: {name: best_val_acc, goal: maximize}
parameters:
  data: {value: whole}
  batch_size: {value: 16}
  lr: {values: [0.005, 0.00001]}
"""
MODELS = {
    "deeper_cnn": "  model: {value: deeper_cnn}\n  width: {value: 4}\n  epochs: {value: 6}\n",
    "simple_cnn": "  model: {value: simple_cnn}\n  channels: {value: 4}\n  hidden: {value: 16}\n  epochs: {value: 3}\n",
}
"""With fewer epochs, both collapse, and there is no winner."""

HERE = ("--gpus", "none", "--slots", "1")


@pytest.fixture(scope="session")
def home_with_sweeps(tmp_path_factory, whole_cache):
    """A home with finished sweeps of two DeeperCNNs and, after it, of two SimpleCNNs, and the ids of the two."""
    folder = tmp_path_factory.mktemp("searched")
    ids = []
    with on_one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_HOME", str(folder / ".fersweep"))
        patch.setenv("FERSWEEP_CACHE", str(whole_cache))
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr("fer_sweep.agent.session.TrialStarter", lambda models: ScriptedStarter(train_for_real))
        for model, parameters in MODELS.items():
            file = folder / f"{model}.yaml"
            file.write_text(GRID + parameters)
            sweep = api.create(file)
            sweep.agent(gpus="none", slots=1)
            ids.append(sweep.id)
    return folder / ".fersweep", *ids


@pytest.fixture
def both(home_with_sweeps, whole_data):
    """The sweeps of SimpleCNNs, searched last, and of DeeperCNNs, in the test's own home."""
    there, deeper, simple = home_with_sweeps
    shutil.copytree(there, home())
    return simple, deeper


@pytest.fixture
def searched(both):
    """The sweep searched last."""
    return both[0]


@pytest.fixture
def trained(searched):
    """The folder `trial` in the working directory: of the first trial of that sweep."""
    return str(shutil.copytree(trial_folder(searched, "0"), "trial"))


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


@pytest.fixture(autouse=True)
def pictures():
    """Two pictures in the working directory."""
    rng = np.random.default_rng(0)
    for name, shape in (("one.jpg", (120, 160, 3)), ("two.png", (48, 48))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(name)
    return ["one.jpg", "two.png"]


def test_the_winner_of_the_last_sweep_is_exported_and_used(shell, searched, pictures):
    winner = shell.json("best")["winner"]["id"]
    other = "1" if winner == "0" else "0"
    done = shell.json("export", "-o", "deep/er/out")
    assert done["model"] == f"{searched}/{winner}"
    assert done["files"] == ["README.md", "config.json", "model.safetensors"]
    assert done["checked_on"] == 35 and done["largest_difference"] <= done["tolerance"]
    assert f"`{searched}/{winner}`" in Path("deep/er/out/README.md").read_text()

    here, exported = (shell.json("predict", *pictures, *more) for more in ((), ("--folder", "deep/er/out")))
    assert here["model"] == f"{searched}/{winner}"
    assert here["images"] == exported["images"]
    assert shell.json("predict", *pictures, "--sweep", searched, "--trial", other)["images"] != here["images"]

    code, out, err = shell("export", searched, "--trial", other, "-o", "other")
    assert code == 0 and f"{searched}/{other}" in out
    assert "model.safetensors" in out and "on 35 validation images" in " ".join(out.split()) and "README.md" in err


def test_commands_that_only_read_work_in_a_home_that_cannot_be_written(shell, searched):
    reading = (("best",), ("status",), ("predict", "one.jpg"))
    before = [shell.json(*words) for words in reading]
    read_only(home() / "sweeps.db")
    assert [shell.json(*words) for words in reading] == before
    assert shell("report", "-o", "report.html")[0] == shell("export", "-o", "out")[0] == 0
    code, _, err = shell("retry", "--trial", "0")
    assert code == 2 and "has not failed" in err
    code, _, err = shell("pause")
    assert code == 1 and "read-only" in err and "FERSWEEP_HOME" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --folder trial", "-o FOLDER"),
        ("export --folder trial -o trial", "exists already"),
        ("export --folder trial -o out --format pickle", "'safetensors', 'onnx', 'huggingface'"),
        ("export asweep --folder trial -o out", "one or the other"),
        ("predict one.jpg --folder nowhere", "no such folder"),
        ("predict one.jpg --folder trial --device 7", "device 7"),
        ("predict one.jpg text.jpg missing\x1b.png --folder trial", "text.jpg: not a readable image"),
        ("predict one.jpg text.jpg missing\x1b.png --folder trial", "missing\\x1b.png: no such file"),
    ],
)
def test_bad_arguments_are_refused(shell, trained, words, message):
    Path("text.jpg").write_text("no picture")
    code, out, err = shell(*words.split(" "))
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("out").exists()


def test_several_pictures_are_predicted_as_each_alone_with_bars_on_a_terminal(shell, trained, pictures, monkeypatch):
    found = shell.json("predict", *pictures, "--folder", trained)["images"]
    assert [image["image"] for image in found] == pictures
    for image in found:
        assert list(image["probabilities"]) == list(CLASSES)
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert image["expression"] == max(image["probabilities"], key=image["probabilities"].get)
        assert image["faces"] is None
    assert found[0]["square"] == {"left": 20, "top": 0, "side": 120}
    (alone,) = shell.json("predict", pictures[0], "--folder", trained)["images"]
    assert alone["probabilities"] == pytest.approx(found[0]["probabilities"], abs=1e-6)

    expression = alone["expression"]
    _, out, _ = shell("predict", *pictures, "--folder", trained)
    assert out.count("%") == 14 and "█" not in out and "\x1b" not in out
    title, line = out.splitlines()[:2]
    assert title == f"one.jpg: {expression}"
    assert line.split() == [expression, f"{100 * found[0]['probabilities'][expression]:.1f}", "%"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, out, _ = shell("predict", *pictures, "--folder", trained)
    assert out.count("%") == 14 and "█" in out


def test_a_folder_stands_for_its_pictures_by_name_and_what_is_skipped_is_counted(shell, trained, pictures):
    for name in ("b.PNG", "a.jpg"):
        Path("mine/deeper").mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[name == "b.PNG"], f"mine/{name}")
    for name in ("broken.png", "notes.txt", ".DS_Store"):
        Path("mine", name).write_text("no picture")
    code, out, err = shell("predict", "mine", "one.jpg", "--folder", trained, "--json")
    assert code == 0, err
    assert [image["image"] for image in json.loads(out)["images"]] == ["mine/a.jpg", "mine/b.PNG", "one.jpg"]
    assert "mine: 3 pictures; skipped 2 other entries, such as deeper" in err
    assert "skipped: mine/broken.png: not a readable image" in err
    for broken, says in (("mine/broken.png", "mine/broken.png: not a"), ("mine/deeper", "mine/deeper: no pictures")):
        code, _, err = shell("predict", broken, "--folder", trained)
        assert code == 2 and says in err


def test_crop_face_refuses_a_picture_without_a_face(shell, trained, pictures):
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'fersweep[faces]'")
    code, _, err = shell("predict", pictures[0], "--crop-face", "--folder", trained)
    assert code == 2 and "no face was found" in err
