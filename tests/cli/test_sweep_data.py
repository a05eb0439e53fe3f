"""The data of a sweep on several hosts: here, folders that FERSWEEP_CACHE names, with one home among them."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fer_sweep.search.registry import find
from fer_sweep.search.sweep_data import _pin, _pinned

from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.data.sharing import share
from fer_sweep.records import TrialOutcome
from tests.cli.conftest import write_sweep
from tests.support.faces import Faces
from tests.support.scripted_starter import PlayedTrial, ScriptedStarter, stopped, train_all, train_for_real
from tests.support.shell import Shell

pytestmark = pytest.mark.usefixtures("tiny_data", "played_trials", "one_core")

ARRAYS = ("images", "labels", "splits", "groups")
AGENT = ("agent", "--gpus", "none", "--slots", "1")

Move = Callable[[Path], None]


@pytest.fixture
def file() -> str:
    return write_sweep(trials=4, epochs=1)


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Go to the host that has this cache."""
    return lambda cache: monkeypatch.setenv("FERSWEEP_CACHE", str(cache))


@pytest.fixture
def empty_host(tmp_path: Path) -> Path:
    """A cache with nothing in it."""
    return tmp_path / "other"


@pytest.fixture(scope="session")
def others_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    Faces.banded(8, 4, seed=5).prepared(folder, "tiny", source="others")
    return folder


@pytest.fixture
def other_host(others_once: Path, tmp_path: Path) -> Path:
    """A cache in which `tiny` names other faces."""
    shutil.copytree(others_once / "cache", tmp_path / "other")
    return tmp_path / "other"


def test_a_host_without_the_data_copies_it_from_the_shared_home(
    shell: Shell, file: str, postgres: str, empty_host: Path, move: Move
) -> None:
    shell("create", file, "--storage", postgres)
    original = open_dataset("tiny")
    move(empty_host)
    code, out, err = shell(*AGENT, "--count", "1")
    assert code == 0, err
    assert "tiny is not prepared on this host" in out and "copying 210 images from faces" in out
    copied = open_dataset("tiny")
    assert copied.info == original.info
    assert all(np.array_equal(getattr(copied, name), getattr(original, name)) for name in ARRAYS)
    assert "copying" not in shell(*AGENT, "--count", "1")[1], "once is enough"


def test_without_a_shared_copy_the_error_says_what_to_run_here_and_there(
    shell: Shell, file: str, tiny_cache: Path, empty_host: Path, move: Move
) -> None:
    shell("create", file)
    move(empty_host)
    code, _, err = shell(*AGENT)
    assert code == 2
    assert "fersweep data prepare faces --name tiny" in err and "fersweep data share tiny" in err
    move(tiny_cache)
    assert "copied to" in shell("data", "share", "tiny")[2]
    assert "shared already" in shell("data", "share", "tiny")[2]
    move(empty_host)
    assert shell(*AGENT, "--count", "1")[0] == 0


def test_a_host_with_other_content_of_that_name_trains_neither_the_sweep_nor_its_confirmation(
    shell: Shell, file: str, other_host: Path, move: Move
) -> None:
    shell("create", file)
    shell(*AGENT, "--count", "2")
    move(other_host)
    code, _, err = shell(*AGENT)
    assert code == 2
    assert "84 images from others" in err and "in place of 210 images from faces" in err and "--replace" in err
    assert len(shell.json("status")["trials"]) == 2
    code, _, err = shell("confirm", "--seeds", "2", "--gpus", "none")
    assert code == 2 and "is not what sweep confirm-" in err


def test_no_trial_trains_on_data_replaced_under_an_agent(
    shell: Shell, tiny_cache: Path, others_once: Path, move: Move, tmp_path: Path, played_trials: ScriptedStarter
) -> None:
    move(shutil.copytree(tiny_cache, tmp_path / "here"))

    def replaced_after_the_first(trial: PlayedTrial) -> TrialOutcome:
        outcome = train_for_real(trial)
        if trial.trial_id == "0":
            prepare(others_once / "others", "tiny", replace=True)
        return outcome

    played_trials.script = replaced_after_the_first
    shell("create", write_sweep(trials=2))
    code, _, err = shell(*AGENT)
    assert code == 1
    assert "data set tiny has been replaced" in err and "others" in err
    assert [trial["state"] for trial in shell.json("status")["trials"]] == ["complete", "preempted"]
    prepare(tiny_cache.parent / "faces", "tiny", replace=True)
    played_trials.script = train_for_real
    code, _, err = shell(*AGENT)
    assert code == 0, err
    assert [trial["state"] for trial in shell.json("status")["trials"]] == ["complete"] * 2


def test_the_first_agent_pins_the_data_if_create_could_not(
    shell: Shell, file: str, tiny_cache: Path, empty_host: Path, others_once: Path, move: Move
) -> None:
    move(empty_host)
    shell("create", file)
    move(tiny_cache)
    assert shell(*AGENT, "--count", "1")[0] == 0
    move(others_once / "cache")
    assert "is not what sweep" in shell(*AGENT)[2]


def test_export_and_report_name_the_data_that_the_model_was_trained_on(
    shell: Shell, file: str, tiny_cache: Path, other_host: Path, move: Move, played_trials: ScriptedStarter
) -> None:
    trained_on = open_dataset("tiny").info.fingerprint
    shell("create", file)
    played_trials.script = train_for_real
    shell(*AGENT, "--count", "1")
    move(other_host)
    other = open_dataset("tiny").info.fingerprint
    code, _, err = shell("export", "-o", "out")
    assert code == 1 and trained_on[:12] in err and other[:12] in err and "--replace" in err
    assert not Path("out").exists()
    assert shell("report", "-o", "report.html", "--faces")[0] == 0
    report = Path("report.html").read_text()
    assert trained_on in report and other not in report
    move(tiny_cache)
    assert shell("export", "-o", "out")[0] == 0
    assert trained_on[:12] in Path("out/README.md").read_text()
    move(other_host)
    assert shell("export", "--folder", "out", "-o", "again")[0] == 1, "the copy knows it too"


def test_a_damaged_shared_copy_is_refused_and_can_be_shared_again(
    shell: Shell, file: str, tiny_cache: Path, empty_host: Path, move: Move
) -> None:
    shell("create", file)
    shell("data", "share", "tiny")
    (copy,) = Path(".fersweep/data").glob("[!.]*")
    images = bytearray((copy / "images.npy").read_bytes())
    images[-1] ^= 1
    (copy / "images.npy").write_bytes(images)
    move(empty_host)
    code, _, err = shell(*AGENT)
    assert code == 2 and "does not match its fingerprint" in err and f"remove {copy.absolute()}" in err
    assert not (empty_host / "data" / "tiny.json").exists()
    shutil.rmtree(copy)
    move(tiny_cache)
    shell("data", "share", "tiny")
    move(empty_host)
    assert shell(*AGENT, "--count", "1")[0] == 0


def test_of_two_hosts_that_pin_at_once_the_first_wins_and_an_unreadable_pin_is_named(shell: Shell, file: str) -> None:
    entry = find(shell.json("create", file)["sweep"])
    first = _pinned(entry.id, "tiny")
    assert first is not None
    assert _pin(entry, first.model_copy(update={"fingerprint": "ab" * 32})) == first
    pin = Path(f".fersweep/sweeps/{entry.id}/data-tiny.json").absolute()
    pin.write_text(json.dumps({"name": "tiny"}))
    code, _, err = shell(*AGENT)
    assert code == 2 and str(pin) in err


def test_drawn_faces_cannot_be_shared(shell: Shell) -> None:
    code, _, err = shell("data", "share", "synthetic")
    assert code == 2 and "every host" in err
    assert not Path(".fersweep/data").exists()


def test_hosts_that_share_at_once_share_once_and_remove_what_a_killed_one_left(tmp_path: Path) -> None:
    dataset = open_dataset("tiny")
    left = tmp_path / "shared" / f".{dataset.info.fingerprint}.0123abcd"
    left.mkdir(parents=True)
    (left / "images.npy").touch()
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: share(dataset, tmp_path / "shared"), range(8)))
    assert done.count(True) == 1
    (copy,) = (path for path in (tmp_path / "shared").iterdir() if path.is_dir())
    assert copy.name == dataset.info.fingerprint
    assert sorted(path.name for path in copy.iterdir()) == sorted(f"{name}.npy" for name in ARRAYS)


def test_trials_saved_on_another_host_are_begun_anew_after_all_others(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, played_trials: ScriptedStarter
) -> None:
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

    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch of there"))
    played_trials.script = train_all
    code, out, err = shell(*AGENT)
    assert code == 0, err
    begun = [line.split(":")[1].strip() for line in out.splitlines() if " trial " in line and "lr=" in line]
    assert begun == ["trial 1", "trial 0 (attempt 2)"]
    rows = [json.loads(line) for line in (trial / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert checkpoint.is_file(), "the other host's own"


def test_a_mirror_of_the_home_without_its_checkpoints_is_refused(
    shell: Shell, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell("create", file)
    monkeypatch.setenv("FERSWEEP_CHECKPOINTS", str(tmp_path / "scratch"))
    code, _, err = shell(*AGENT, "--mirror", str(tmp_path / "drive"))
    assert code == 2 and "FERSWEEP_CHECKPOINTS" in err
