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
from PIL import Image

from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.data.sharing import share
from fer_sweep.records import CLASSES, TrialOutcome
from fer_sweep.search.registry import find
from fer_sweep.search.sweep_data import _pin, _pinned
from tests.cli.conftest import write_sweep
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
def there(tmp_path: Path) -> Path:
    """The cache of another host, with nothing in it."""
    return tmp_path / "other"


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Go to the host that has this cache."""
    return lambda cache: monkeypatch.setenv("FERSWEEP_CACHE", str(cache))


def other_faces(folder: Path) -> Path:
    """Other faces than those of `tiny`, as image folders."""
    rng = np.random.default_rng(5)
    for split, prefix, count in (("train", "Training", 8), ("test", "PublicTest", 4)):
        for code, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                face = rng.integers(0, 256, (48, 48), dtype=np.uint8)
                Image.fromarray(face).save(folder / split / name / f"{prefix}_{code}{number}.png")
    return folder


def test_a_host_without_the_data_copies_it_from_the_shared_home(
    shell: Shell, file: str, postgres: str, there: Path, move: Move
) -> None:
    shell("create", file, "--storage", postgres)
    original = open_dataset("tiny")
    move(there)
    code, out, err = shell(*AGENT, "--count", "1")
    assert code == 0, err
    assert "tiny is not prepared on this host" in out and "copying 210 images from faces" in out
    copied = open_dataset("tiny")
    assert copied.info == original.info
    assert all(np.array_equal(getattr(copied, name), getattr(original, name)) for name in ARRAYS)
    assert "copying" not in shell(*AGENT, "--count", "1")[1], "once is enough"


def test_without_a_shared_copy_the_error_says_what_to_run_here_and_there(
    shell: Shell, file: str, tiny_cache: Path, there: Path, move: Move
) -> None:
    shell("create", file)
    move(there)
    code, _, err = shell(*AGENT)
    assert code == 2
    assert "fersweep data prepare faces --name tiny" in err and "fersweep data share tiny" in err
    move(tiny_cache)
    assert "copied to" in shell("data", "share", "tiny")[2]
    assert "shared already" in shell("data", "share", "tiny")[2]
    move(there)
    assert shell(*AGENT, "--count", "1")[0] == 0


def test_a_host_with_other_content_of_that_name_does_not_train(
    shell: Shell, file: str, there: Path, move: Move, tmp_path: Path
) -> None:
    shell("create", file)
    move(there)
    prepare(other_faces(tmp_path / "others"), "tiny")
    code, _, err = shell(*AGENT)
    assert code == 2
    assert "84 images from others" in err and "in place of 210 images from faces" in err and "--replace" in err
    assert shell.json("status")["trials"] == []


def test_no_trial_trains_on_data_replaced_under_an_agent(
    shell: Shell, tiny_cache: Path, there: Path, move: Move, tmp_path: Path, played_trials: ScriptedStarter
) -> None:
    shutil.copytree(tiny_cache, there)
    move(there)

    def replaced_after_the_first(trial: PlayedTrial) -> TrialOutcome:
        outcome = train_for_real(trial)
        if trial.trial_id == "0":
            prepare(other_faces(tmp_path / "others"), "tiny", replace=True)
        return outcome

    played_trials.script = replaced_after_the_first
    shell("create", write_sweep(trials=2))
    code, _, err = shell(*AGENT)
    assert code == 1
    assert "data set tiny has been replaced" in err and "others" in err
    states = [trial["state"] for trial in shell.json("status")["trials"]]
    assert states == ["complete", "preempted"]
    prepare(tiny_cache.parent / "faces", "tiny", replace=True)
    played_trials.script = train_for_real
    code, _, err = shell(*AGENT)
    assert code == 0, err
    assert [trial["state"] for trial in shell.json("status")["trials"]] == ["complete"] * 2


def test_the_first_agent_pins_the_data_if_create_could_not(
    shell: Shell, file: str, tiny_cache: Path, there: Path, move: Move, tmp_path: Path
) -> None:
    move(there)
    shell("create", file)
    code, _, err = shell(*AGENT)
    assert code == 2 and "no data set 'tiny' has been prepared" in err
    move(tiny_cache)
    assert shell(*AGENT, "--count", "1")[0] == 0
    move(there)
    prepare(other_faces(tmp_path / "others"), "tiny")
    assert "is not what sweep" in shell(*AGENT)[2]


def test_export_and_report_name_the_data_that_the_model_was_trained_on(
    shell: Shell, file: str, tiny_cache: Path, there: Path, move: Move, tmp_path: Path, played_trials: ScriptedStarter
) -> None:
    trained_on = open_dataset("tiny").info.fingerprint
    shell("create", file)
    played_trials.script = train_for_real
    shell(*AGENT, "--count", "1")
    move(there)
    other = prepare(other_faces(tmp_path / "others"), "tiny").fingerprint
    code, _, err = shell("export", "-o", "out")
    assert code == 1 and trained_on[:12] in err and other[:12] in err and "--replace" in err
    assert not Path("out").exists()
    assert shell("report", "-o", "report.html", "--faces")[0] == 0
    report = Path("report.html").read_text()
    assert trained_on in report and other not in report
    move(tiny_cache)
    assert shell("export", "-o", "out")[0] == 0
    assert trained_on[:12] in Path("out/README.md").read_text()
    move(there)
    assert shell("export", "--folder", "out", "-o", "again")[0] == 1, "the copy knows it too"


def test_a_confirmation_inherits_the_data_of_its_sweep(
    shell: Shell, file: str, there: Path, move: Move, tmp_path: Path
) -> None:
    shell("create", file)
    shell(*AGENT, "--count", "2")
    move(there)
    prepare(other_faces(tmp_path / "others"), "tiny")
    code, _, err = shell("confirm", "--seeds", "2", "--gpus", "none")
    assert code == 2 and "is not what sweep confirm-" in err


def test_a_damaged_shared_copy_is_refused_and_can_be_shared_again(
    shell: Shell, file: str, tiny_cache: Path, there: Path, move: Move
) -> None:
    shell("create", file)
    shell("data", "share", "tiny")
    (copy,) = Path(".fersweep/data").glob("[!.]*")
    images = bytearray((copy / "images.npy").read_bytes())
    images[-1] ^= 1
    (copy / "images.npy").write_bytes(images)
    move(there)
    code, _, err = shell(*AGENT)
    assert code == 2 and "does not match its fingerprint" in err and f"remove {copy.absolute()}" in err
    assert not (there / "data" / "tiny.json").exists()
    shutil.rmtree(copy)
    move(tiny_cache)
    shell("data", "share", "tiny")
    move(there)
    assert shell(*AGENT, "--count", "1")[0] == 0


def test_an_unreadable_pin_is_named(shell: Shell, file: str) -> None:
    sweep = shell.json("create", file)["sweep"]
    pin = Path(f".fersweep/sweeps/{sweep}/data-tiny.json").absolute()
    pin.write_text(json.dumps({"name": "tiny"}))
    code, _, err = shell(*AGENT)
    assert code == 2 and str(pin) in err


def test_of_two_hosts_that_pin_at_once_the_first_wins(shell: Shell, file: str) -> None:
    entry = find(shell.json("create", file)["sweep"])
    first = _pinned(entry.id, "tiny")
    assert first is not None
    assert _pin(entry, first.model_copy(update={"fingerprint": "ab" * 32})) == first


def test_drawn_faces_cannot_be_shared(shell: Shell) -> None:
    code, _, err = shell("data", "share", "synthetic")
    assert code == 2 and "every host" in err
    assert not Path(".fersweep/data").exists()


def test_hosts_that_share_at_once_share_once(tmp_path: Path) -> None:
    dataset = open_dataset("tiny")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: share(dataset, tmp_path / "shared"), range(8)))
    assert done.count(True) == 1
    (copy,) = (tmp_path / "shared").glob("[!.]*")
    assert sorted(path.name for path in copy.iterdir()) == sorted(f"{name}.npy" for name in ARRAYS)


def test_the_next_share_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    dataset = open_dataset("tiny")
    left = tmp_path / "shared" / f".{dataset.info.fingerprint}.0123abcd"
    left.mkdir(parents=True)
    (left / "images.npy").touch()
    assert share(dataset, tmp_path / "shared")
    assert [path.name for path in (tmp_path / "shared").iterdir() if path.is_dir()] == [dataset.info.fingerprint]


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
