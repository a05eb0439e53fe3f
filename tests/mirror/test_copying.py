"""A home is copied while it changes; whatever happens to the drive, trials continue and the copy is usable."""

import errno
import itertools
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

import fer_sweep.mirror.copying as copying
from fer_sweep import api
from fer_sweep.errors import InputError, StorageError
from fer_sweep.files import atomic_path, home
from fer_sweep.mirror.copying import MARK, Mirror

WAIT_S = 20.0
"""Bounds a failing test only."""
TRIAL = Path("sweeps", "abc", "trials", "0")


@pytest.fixture
def trial():
    """The folder of a trial in the home."""
    folder = home() / TRIAL
    folder.mkdir(parents=True)
    for name in ("config.json", "history.jsonl", "best.safetensors", "last.ckpt", "previous.ckpt", "trial.log"):
        (folder / name).write_text(f"{name} 1")
    return folder


def contents(folder):
    """The files by path, but for the database and the names of home and mirror."""
    others = ("sweeps.db", ".", MARK, "home.json")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(others)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_agent_leaves_a_whole_copy_of_the_home(write_sweep, folder, played_trials):
    sweep = api.run(write_sweep(), gpus="none", slots=1, mirror=folder)
    mirrored = contents(folder)
    assert mirrored == contents(home())
    assert {f"sweeps/{sweep.id}/trials/{n}/result.json" for n in range(3)} <= mirrored.keys()
    assert not list(folder.rglob(".*"))
    with closing(sqlite3.connect(f"file:{folder}/sweeps.db?mode=ro&immutable=1", uri=True)) as raw:
        assert raw.execute("SELECT COUNT(*) FROM fersweep_trials WHERE state = 'complete'").fetchone() == (3,)


def test_only_what_changed_is_copied_and_checkpoints_of_finished_trials_go(trial, folder, monkeypatch):
    (trial / "link").symlink_to("/etc/passwd")  # not followed
    mirror, written = Mirror(folder, tell=print), []
    monkeypatch.setattr(copying, "atomic_path", lambda path: written.append(path.name) or atomic_path(path))

    def copied(mirror=mirror):
        written.clear()
        mirror.copy()
        return sorted(written)

    assert copied() == ["best.safetensors", "config.json", "history.jsonl", "last.ckpt", "trial.log"]
    assert copied() == []
    (trial / "new.ckpt").write_text("last.ckpt 2")
    (trial / "new.ckpt").replace(trial / "last.ckpt")
    assert copied() == ["last.ckpt"]
    assert copied(Mirror(folder, tell=print)) == [], "a further agent of this home knows what is there"
    (trial / "last.ckpt").unlink()
    assert copied() == []
    copy = folder / TRIAL
    assert (copy / "last.ckpt").read_text() == "last.ckpt 2"  # it is away for a moment while a new one is put in place
    (trial / "result.json").write_text("{}")
    assert copied() == ["result.json"]
    assert not (copy / "last.ckpt").exists()


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_a_copy_cut_off_anywhere_has_no_result_or_checkpoint_without_its_files(stop_at, trial, folder, monkeypatch):
    mirror = Mirror(folder, tell=print)
    mirror.copy()
    for path in [*trial.iterdir(), trial / "result.json"]:
        path.write_text(f"{path.name} 22")
    replace, steps = Path.replace, itertools.count(1)

    def replace_some(self, target):
        if next(steps) == stop_at:
            raise OSError(errno.EIO, "unplugged")
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="unplugged"):
        patch.setattr(Path, "replace", replace_some)
        mirror.copy()
    new = {path.name for path in (folder / TRIAL).iterdir() if path.read_text().endswith("22")}
    if "result.json" in new:
        assert {"best.safetensors", "history.jsonl", "last.ckpt"} <= new
    if "last.ckpt" in new:
        assert {"best.safetensors", "history.jsonl"} <= new


def test_an_unmounted_drive_is_reported_once_and_not_written_below_and_its_return_is_reported(
    trial, folder, monkeypatch
):
    told, away, rounds = [], folder.with_name("away"), threading.Semaphore(0)
    monkeypatch.setattr(copying, "EVERY_S", 3600.0)
    monkeypatch.setattr(copying, "REST_S", 0.0)
    mirror = Mirror(folder, tell=told.append)
    copy = mirror.copy

    def counted_copy():
        try:
            copy()
        finally:
            rounds.release()

    def copy_again():
        mirror.nudge()
        assert rounds.acquire(timeout=WAIT_S)

    monkeypatch.setattr(mirror, "copy", counted_copy)
    with mirror:
        assert rounds.acquire(timeout=WAIT_S)
        folder.rename(away)
        (trial / "last.ckpt").write_text("last.ckpt 2")
        copy_again()
        copy_again()
        assert not folder.exists()
        away.rename(folder)
        copy_again()
        assert (folder / TRIAL / "last.ckpt").read_text() == "last.ckpt 2"
        folder.rename(away)
    assert len(told) == 3
    assert "unmounted" in told[0] and "trials continue" in told[0]
    assert "up to date again" in told[1]
    assert "the last copy failed" in told[2]


def test_the_rest_after_a_copy_does_not_count_the_wait_before_it(folder, monkeypatch):
    rounds, began = threading.Semaphore(0), time.monotonic()
    monkeypatch.setattr(copying, "EVERY_S", 0.2)
    monkeypatch.setattr(copying, "REST_S", 0.0)
    mirror = Mirror(folder, tell=print)
    monkeypatch.setattr(mirror, "copy", rounds.release)
    with mirror:
        assert all(rounds.acquire(timeout=WAIT_S) for _ in range(6))
    assert time.monotonic() - began < 4.0, "six copies 0.2 s apart, not 1.0 s"


def test_a_drive_that_hangs_does_not_delay_the_end(folder, monkeypatch):
    told, let_go = [], threading.Event()
    monkeypatch.setattr(copying, "STALLED_S", 0.0)
    mirror = Mirror(folder, tell=told.append)
    monkeypatch.setattr(mirror, "copy", lambda: let_go.wait(WAIT_S))
    with mirror:
        pass
    let_go.set()
    assert "does not respond" in told[0]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere/m", "not found"),
        (".fersweep/m", "contains the other"),
        (".", "contains the other"),
        ("a-file", "this is a file"),
        ("full", "contains other files, such as thesis.pdf"),
    ],
)
def test_an_unsuitable_folder_is_refused_before_a_sweep_is_created(place, words, write_sweep, tmp_path):
    (tmp_path / "a-file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.pdf").touch()
    with pytest.raises(InputError, match=words):
        api.run(write_sweep(), gpus="none", mirror=tmp_path / place)
    assert not (home() / "sweeps").exists()


def test_a_sweep_in_another_database_cannot_be_mirrored(write_sweep, folder, tmp_path):
    sweep = api.create(write_sweep(), storage=f"sqlite:///{tmp_path}/else.db")
    with pytest.raises(InputError, match=r"is in .*else\.db"):
        sweep.agent(gpus="none", mirror=folder)
