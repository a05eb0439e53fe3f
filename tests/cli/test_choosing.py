"""best, confirm and test on real small trials: from a finished sweep to the one look at its test split."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fer_sweep.choosing import choose, chosen
from fer_sweep.errors import InputError
from fer_sweep.files import cache_dir, home, sweep_folder, trial_folder
from fer_sweep.search.registry import find
from tests.cli.conftest import Shell
from tests.processes import COMMAND, until
from tests.standin.server import StandIn

pytestmark = pytest.mark.usefixtures("one_core")

FILE = """\
program: fersweep
method: grid
metric: {{name: best_val_acc, goal: maximize}}
parameters:
  model: {{value: {model}}}
  data: {{value: {data}}}
  epochs: {{value: {epochs}}}
  batch_size: {{value: 16}}
  lr: {{values: [{rates}]}}
"""
HERE = ("--gpus", "none", "--slots", "1")


def write(folder: Path, data: str, model: str, epochs: int) -> Path:
    sizes = {"simple_cnn": "channels: {value: 4}\n  hidden: {value: 16}", "deeper_cnn": "width: {value: 4}"}[model]
    file = folder / f"{model}.yaml"
    text = FILE.format(model=model, data=data, epochs=epochs, rates="0.005, 0.00001")
    file.write_text(f"{text}  {sizes}\n")
    return file


@pytest.fixture(scope="session")
def home_with_sweeps(tmp_path_factory: pytest.TempPathFactory, whole_cache: Path) -> tuple[Path, str, str]:
    """A home with two finished sweeps: of two SimpleCNNs, one of which learns, and of two DeeperCNNs."""
    folder = tmp_path_factory.mktemp("searched")
    made = []
    for model, epochs in (("deeper_cnn", 6), ("simple_cnn", 3)):
        environment = {
            **os.environ,
            "FERSWEEP_HOME": str(folder / ".fersweep"),
            "FERSWEEP_CACHE": str(whole_cache),
            "WANDB_MODE": "disabled",
        }
        file = write(folder, "whole", model, epochs)
        for words in (["create", str(file)], ["agent", *HERE]):
            done = subprocess.run([*COMMAND, *words], env=environment, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            made += [done.stdout.strip()] if words[0] == "create" else []
    deeper, simple = made
    return folder / ".fersweep", simple, deeper


@pytest.fixture
def both(home_with_sweeps: tuple[Path, str, str], whole_data: str) -> tuple[str, str]:
    """The sweeps of SimpleCNN, searched last, and of DeeperCNN, in the test's own home."""
    there, simple, deeper = home_with_sweeps
    shutil.copytree(there, home())
    return simple, deeper


@pytest.fixture
def searched(both: tuple[str, str]) -> str:
    """The sweep searched last."""
    return both[0]


def test_best_says_why_and_what_to_be_careful_about(shell: Shell, searched: str) -> None:
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
    _, out, _ = shell("best", searched, other)
    assert "each architecture by itself" in out


def test_confirm_trains_further_seeds_once_and_gives_their_mean(shell: Shell, searched: str) -> None:
    document = shell.json("confirm", "--seeds", "2", *HERE)
    (found,) = document["confirmed"]
    winner = shell.json("best")["winner"]  # the last sweep that was searched, not the one that confirms it
    assert found["trial"] == f"{searched}/{winner['id']}"
    assert found["sweep"] == f"confirm-{searched}-{winner['id']}"
    assert found["seeds"] == [1000, 1001]
    accuracies = [result["best_val_acc"] for result in found["results"].values()]
    mean = found["best_val_acc"]
    assert mean["count"] == 2
    assert mean["mean"] == pytest.approx(sum(accuracies) / 2)
    assert mean["low"] <= mean["mean"] <= mean["high"]
    assert found["when_chosen"] == winner["metrics"]["best_val_acc"]
    assert found["optimism"] == pytest.approx(found["when_chosen"] - mean["mean"])

    status = shell.json("status", found["sweep"])
    assert [trial["config"]["seed"] for trial in status["trials"]] == [1000, 1001]
    assert status["state"] == "finished"

    code, out, err = shell("confirm", "--seeds", "2", *HERE)
    assert code == 0, err
    assert "when chosen" in out and "too high on average" in " ".join(out.split())
    assert shell.json("status", found["sweep"]) == status  # nothing was trained again
    assert shell.json("confirm", found["sweep"], "--seeds", "3", *HERE)["confirmed"][0]["seeds"] == [1000, 1001, 1002]
    assert len(shell.json("status", found["sweep"])["trials"]) == 3


def test_confirm_only_made_is_any_agents_work(shell: Shell, searched: str) -> None:
    (made,) = shell.json("confirm", "--seeds", "1", "--create-only")["sweeps"]
    assert shell.json("status", made)["trials"] == []
    code, _, err = shell("agent", made, *HERE)
    assert code == 0
    assert f"next: fersweep confirm {made}" in err
    (found,) = shell.json("confirm", made, *HERE)["confirmed"]
    assert found["best_val_acc"]["count"] == 1
    assert found["best_val_acc"]["low"] is None
    code, out, _ = shell("confirm", searched, *HERE)
    assert code == 0
    assert "no interval" in out


def test_confirm_of_a_trial_that_is_named(shell: Shell, searched: str) -> None:
    assert shell.json("confirm", "--trial", "1", "--create-only")["sweeps"] == [f"confirm-{searched}-1"]
    code, _, err = shell("confirm", "--trial", "77")
    assert code == 2
    assert "0, 1" in err
    code, _, err = shell("confirm", searched, f"confirm-{searched}-1", "--trial", "1")
    assert code == 2
    assert "one sweep" in err


def test_the_winner_of_a_sweep_that_a_server_searched_is_confirmed_on_a_page_of_its_own(
    online: StandIn, shell: Shell, tmp_path: Path, whole_data: str
) -> None:
    made = shell.json("create", str(write(tmp_path, whole_data, "simple_cnn", 3)), "--count", "1")
    assert made["search"] == "wandb"
    code, _, err = shell("agent", made["sweep"], *HERE)
    assert code == 0, err
    (found,) = shell.json("confirm", "--seeds", "2", *HERE)["confirmed"]
    winner = shell.json("best")["winner"]["id"]
    assert found["sweep"] == f"confirm-{made['sweep']}-{winner}"
    runs = {run.id: run.state for run in online.runs.values()}
    assert runs == {winner: "finished", f"{found['sweep']}-0": "finished", f"{found['sweep']}-1": "finished"}
    assert sorted(len(sweep.run_ids) for sweep in online.sweeps.values()) == [1, 2]
    assert {sweep.project for sweep in online.sweeps.values()} == {"fersweep"}


def test_an_interrupted_confirm_goes_on_where_it_stopped(searched: str, shell: Shell) -> None:
    words = ("confirm", "--seeds", "6", *HERE)
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (sweep_folder(f"confirm-{searched}-0") / "trials" / "0" / "history.jsonl").exists())
    process.send_signal(signal.SIGINT)  # the first one: what runs is finished, nothing new begins
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "goes on where this one stopped" in err
    before = shell.json("status", f"confirm-{searched}-0")["trials"]
    assert 0 < len(before) < 6
    assert {trial["state"] for trial in before} == {"complete"}
    (found,) = shell.json(*words)["confirmed"]
    assert found["best_val_acc"]["count"] == 6
    assert shell.json("status", found["sweep"])["trials"][: len(before)] == before


def test_several_confirmed_sweeps_are_compared_seed_by_seed(shell: Shell, both: tuple[str, str]) -> None:
    searched, other = both
    document = shell.json("confirm", searched, other, "--seeds", "2", *HERE)
    (comparison,) = document["comparisons"]
    assert comparison["seeds"] == [1000, 1001]
    first, second = document["confirmed"]
    expected = [first["results"][s]["best_val_acc"] - second["results"][s]["best_val_acc"] for s in ("1000", "1001")]
    assert comparison["difference"]["mean"] == pytest.approx(sum(expected) / 2)
    _, out, _ = shell("confirm", searched, other, "--seeds", "2", *HERE)
    assert "paired" in out and comparison["meaning"] in " ".join(out.split())


def test_the_test_split_is_opened_once_and_again_only_on_demand(shell: Shell, searched: str) -> None:
    found = shell.json("test", "--tta", "flip")
    assert found["images"] == 35
    assert found["clean"]["images"] == 28
    assert found["is_private_test"] is True
    assert found["accuracy"] == found["right"] / 35
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    assert set(found["per_class_recall"]) == {"angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"}
    assert (found["opened"], found["before"]) == (1, [])
    assert found["tta"] == "flip"

    code, out, err = shell("test")
    assert code == 2
    assert out == ""
    assert "opened once already" in err and found["model"] in err and "--again" in err

    code, out, err = shell("test", "--again", "--tta", "tencrop")
    assert code == 0, err
    text = " ".join(out.split())
    assert "opened 2 times" in text and f"before: {found['model']}" in text
    assert "Wilson 95 %" in text and "surprise" in text
    for folder in (sweep_folder(searched), home(), cache_dir()):
        lines = [json.loads(line) for line in (folder / "tests.jsonl").read_text().splitlines()]
        assert [(line["averaging"], line["again"], line["model"]) for line in lines] == [
            ("flip", False, found["model"]),
            ("tencrop", True, found["model"]),
        ]


def test_another_model_does_not_open_it_a_second_time_unasked(shell: Shell, searched: str) -> None:
    shell.json("test")
    assert shell("test", "--trial", "1")[0] == 2
    assert shell.json("test", "--trial", "1", "--again")["opened"] == 2


def test_a_folder_is_tested_in_place_of_a_sweep(shell: Shell, searched: str) -> None:
    folder = trial_folder(searched, "0")
    found = shell.json("test", "--folder", str(folder))
    assert found["folder"] == str(folder)
    assert (folder / "tests.jsonl").is_file()


def test_a_confirmed_choice_shows_its_mean_beside(shell: Shell, searched: str) -> None:
    shell.json("confirm", "--seeds", "2", *HERE)
    assert shell.json("test")["confirmed"]["count"] == 2
    code, out, err = shell("test", "--again")
    assert code == 0
    assert "mean over 2 further seeds" in out
    assert "nobody confirmed" not in err


def test_an_unconfirmed_choice_is_said_to_be_one(shell: Shell, searched: str) -> None:
    _, out, err = shell("test")
    assert "nobody confirmed" in err
    assert "opened for the first time" in out


def test_data_without_a_test_split_says_where_to_get_one(shell: Shell, tmp_path: Path, tiny_data: str) -> None:
    assert shell("create", str(write(tmp_path, tiny_data, "simple_cnn", 1)))[0] == 0
    assert shell("agent", *HERE, "--count", "1")[0] == 0
    code, _, err = shell("test")
    assert code == 2
    assert "no test images" in err and "--data" in err


def test_a_test_split_of_other_data(shell: Shell, searched: str, whole_data: str) -> None:
    assert shell("test", "--data", "nowhere")[0] == 2
    assert not (home() / "tests.jsonl").exists()
    assert shell.json("test", "--data", whole_data)["data"] == whole_data


def test_a_model_of_another_host_is_not_tested_here(shell: Shell, searched: str) -> None:
    winner = shell.json("best")["winner"]["id"]
    trial_folder(searched, winner).rename(trial_folder(searched, "moved"))
    code, _, err = shell("test")
    assert code == 2
    assert "host that trained it" in err


@pytest.mark.parametrize("where", ["home", "sweep"])
def test_what_cannot_be_recorded_is_not_shown(shell: Shell, searched: str, where: str) -> None:
    folder = home() if where == "home" else sweep_folder(searched)
    (folder / "tests.jsonl").mkdir()
    code, out, err = shell("test")
    assert code == 1
    assert out == ""
    assert "tests.jsonl" in err and "Traceback" not in err


def test_choosing_by_hand_is_the_same_choice(searched: str) -> None:
    entry = find(searched)
    choice = choose([entry])
    assert choice.overall.winner == chosen(entry)
    assert choice.by_model["simple_cnn"].winner == chosen(entry)
    with pytest.raises(InputError, match="no trial 9"):
        chosen(entry, "9")
