"""The data of a sweep on several hosts: here, folders that FERSWEEP_CACHE names, with one home among them."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.records import TrialOutcome
from tests.cli.conftest import write_sweep
from tests.support.faces import Faces
from tests.support.scripted_starter import PlayedTrial, stopped, train_all, train_for_real

pytestmark = pytest.mark.usefixtures("tiny_data", "played_trials", "one_core")

ARRAYS = ("images", "labels", "splits", "groups")
AGENT = ("agent", "--gpus", "none", "--slots", "1")
ONE_TRIAL = (*AGENT, "--count", "1")
EMPTY = Path("empty")
"""The cache of a host that has prepared nothing."""


@pytest.fixture
def file():
    return write_sweep(trials=4, epochs=1)


@pytest.fixture
def move(monkeypatch):
    """Go to the host that has this cache."""
    return lambda cache: monkeypatch.setenv("FERSWEEP_CACHE", str(cache.absolute()))


@pytest.fixture(scope="session")
def other_faces(tmp_path_factory):
    """A folder with other faces in `others`, which `tiny` names in its cache."""
    folder = tmp_path_factory.mktemp("others")
    Faces.banded(8, 4, seed=5).prepared(folder, "tiny", source="others")
    return folder


def test_a_host_without_the_data_copies_it_from_the_shared_home(shell, file, postgres, move):
    shell("create", file, "--storage", postgres)
    original = open_dataset("tiny")
    move(EMPTY)
    _, out, err = shell(*ONE_TRIAL)
    assert "tiny is not prepared on this host" in out and "copying 210 images from faces" in out, err
    copied = open_dataset("tiny")
    assert copied.info == original.info
    assert all(np.array_equal(getattr(copied, name), getattr(original, name)) for name in ARRAYS)
    assert "copying" not in shell(*ONE_TRIAL)[1], "once is enough"


def test_data_is_shared_by_a_command_and_a_damaged_copy_refused_and_shared_again(shell, file, tiny_cache, move):
    def refused(*words: str) -> str:
        code, _, err = shell(*words)
        assert code == 2
        return err

    shell("create", file)
    move(EMPTY)
    said = refused(*AGENT)
    assert "fersweep data prepare faces --name tiny" in said and "fersweep data share tiny" in said
    move(tiny_cache)
    assert "every host" in refused("data", "share", "synthetic")
    assert "copied to" in shell("data", "share", "tiny")[2]
    assert "already shared" in shell("data", "share", "tiny")[2]
    (copy,) = Path(".fersweep/data").glob("[!.]*")
    images = bytearray((copy / "images.npy").read_bytes())
    images[-1] ^= 1
    (copy / "images.npy").write_bytes(images)
    move(EMPTY)
    said = refused(*AGENT)
    assert "does not match its fingerprint" in said and f"remove {copy.absolute()}" in said
    assert not (EMPTY / "data" / "tiny.json").exists()
    shutil.rmtree(copy)
    move(tiny_cache)
    shell("data", "share", "tiny")
    move(EMPTY)
    assert shell(*ONE_TRIAL)[0] == 0


@pytest.mark.parametrize("pinned_by", ["create", "agent"])
def test_a_host_with_other_content_of_that_name_trains_neither_the_sweep_nor_its_confirmation(
    shell, file, pinned_by, tiny_cache, other_faces, move
):
    move(tiny_cache if pinned_by == "create" else EMPTY)
    sweep = shell.json("create", file)["sweep"]
    move(tiny_cache)
    shell(*ONE_TRIAL)
    move(other_faces / "cache")
    code, _, err = shell(*AGENT)
    assert code == 2
    assert "84 images from others" in err and "instead of 210 images from faces" in err and "--replace" in err
    assert len(shell.json("status")["trials"]) == 1
    code, _, err = shell("confirm", "--seeds", "2", "--gpus", "none")
    assert code == 2 and "differs from the one sweep confirm-" in err
    pin = Path(f".fersweep/sweeps/{sweep}/data-tiny.json").absolute()
    pin.write_text(json.dumps({"name": "tiny"}))
    code, _, err = shell("agent", sweep)
    assert code == 2 and str(pin) in err, "a pin that cannot be read is named"


def test_no_trial_trains_on_data_replaced_under_an_agent(shell, tiny_cache, other_faces, move, tmp_path, played_trials):
    move(shutil.copytree(tiny_cache, tmp_path / "here"))

    def replaced_after_the_first(trial: PlayedTrial) -> TrialOutcome:
        outcome = train_for_real(trial)
        if trial.trial_id == "0":
            prepare(other_faces / "others", "tiny", replace=True)
        return outcome

    played_trials.script = replaced_after_the_first
    shell("create", write_sweep(trials=2))
    code, _, err = shell(*AGENT)
    assert code == 1 and "data set tiny has been replaced" in err and "others" in err
    assert [trial["state"] for trial in shell.json("status")["trials"]] == ["complete", "preempted"]
    prepare(tiny_cache.parent / "faces", "tiny", replace=True)
    played_trials.script = train_for_real
    assert shell.json(*AGENT)["ended"] == {"complete": 1}


def test_export_names_the_data_that_the_model_was_trained_on(shell, file, tiny_cache, other_faces, move, played_trials):
    trained_on = open_dataset("tiny").info.fingerprint
    shell("create", file)
    played_trials.script = train_for_real
    shell(*ONE_TRIAL)
    assert shell("export", "-o", "out")[0] == 0
    assert trained_on[:12] in Path("out/README.md").read_text()
    move(other_faces / "cache")
    other = open_dataset("tiny").info.fingerprint
    for again in ((), ("--folder", "out")):
        code, _, err = shell("export", "-o", "again", *again)
        assert code == 1 and trained_on[:12] in err and other[:12] in err and "--replace" in err
    assert not Path("again").exists()


def test_trials_saved_on_another_host_are_begun_anew_after_all_others_and_not_mirrored(
    shell, monkeypatch, tmp_path, played_trials
):
    def preempted(trial: PlayedTrial) -> TrialOutcome:
        trial.begin()
        trial.train(2)
        os.kill(os.getpid(), signal.SIGTERM)
        return stopped(trial, trial.wait_for_stop())

    played_trials.script = preempted
    sweep = shell.json("create", write_sweep(trials=2, epochs=5))["sweep"]
    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch of here"))
    assert shell(*AGENT)[0] == 130
    checkpoint = tmp_path / "scratch of here" / sweep / "0" / "last.ckpt"
    trial = Path(f".fersweep/sweeps/{sweep}/trials/0")
    assert checkpoint.is_file() and not (trial / "last.ckpt").exists()
    code, _, err = shell(*AGENT, "--mirror", str(tmp_path / "drive"))
    assert code == 2 and "FERSWEEP_CHECKPOINTS" in err, "a mirror would have no checkpoints"

    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch of there"))
    played_trials.script = train_all
    code, out, err = shell(*AGENT)
    assert code == 0, err
    begun = [line.split(":")[1].strip() for line in out.splitlines() if " trial " in line and "lr=" in line]
    assert begun == ["trial 1", "trial 0 (attempt 2)"]
    rows = [json.loads(line) for line in (trial / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert checkpoint.is_file(), "the other host's own"
