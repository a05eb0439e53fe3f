"""A home is copied to a drive while it changes, whatever happens to the drive, and the next machine resumes from it."""

import errno
import itertools
import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from fer_sweep import api
from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.files import atomic_path, home
from fer_sweep.mirror import copying
from fer_sweep.mirror.copying import MARK, Mirror
from fer_sweep.mirror.restoring import restore
from tests.support.processes import SWEEP
from tests.support.scripted_starter import train_all
from tests.support.searches import find

WAIT_S = 20.0
"""Bounds a failing test only."""
TRIAL = Path("sweeps", "abc", "trials", "0")


@pytest.fixture
def folder(tmp_path):
    """Where the mirror is to be, on a mounted drive."""
    (tmp_path / "drive").mkdir()
    return tmp_path / "drive" / "m"


@pytest.fixture
def write_sweep(tiny_data, tmp_path):
    """Writes the file of a sweep of so many trials and epochs."""

    def write(trials=3, epochs=3):
        text = SWEEP.replace("EPOCHS", str(epochs)).replace("run_cap: 1", f"run_cap: {trials}")
        (tmp_path / "sweep.yaml").write_text(text)
        return tmp_path / "sweep.yaml"

    return write


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


def test_a_drive_that_hangs_does_not_delay_the_end(folder, monkeypatch):
    told, let_go = [], threading.Event()
    monkeypatch.setattr(copying, "STALLED_S", 0.0)
    mirror = Mirror(folder, tell=told.append)
    monkeypatch.setattr(mirror, "copy", lambda: let_go.wait(WAIT_S))
    with mirror:
        pass
    let_go.set()
    assert "does not respond" in told[0]


UNSUITABLE = {"nowhere/m": "not found", ".fersweep/m": "contains the other", ".": "contains the other"}
UNSUITABLE |= {"a-file": "File exists", "full": "contains other files, such as thesis.pdf"}


@pytest.mark.parametrize(("place", "words"), UNSUITABLE.items())
def test_an_unsuitable_folder_is_refused_before_a_sweep_is_created(place, words, write_sweep, tmp_path):
    (tmp_path / "full").mkdir()
    for name in ("a-file", "full/thesis.pdf"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=words):
        api.run(write_sweep(), gpus="none", mirror=tmp_path / place)
    assert not (home() / "sweeps").exists()


def test_a_sweep_in_another_database_cannot_be_mirrored(write_sweep, folder, tmp_path):
    sweep = api.create(write_sweep(), storage=f"sqlite:///{tmp_path}/else.db")
    with pytest.raises(InputError, match=r"is in .*else\.db"):
        sweep.agent(gpus="none", mirror=folder)


@pytest.fixture
def move(monkeypatch, tmp_path):
    """Moves to another machine, whose home has this name instead of `.fersweep`."""
    return lambda name="next": monkeypatch.setenv("FERSWEEP_HOME", str(tmp_path / name))


def copy_home(folder):
    Mirror(folder, tell=print).copy()


def test_a_finished_sweep_is_whole_on_the_next_machine(write_sweep, folder, played_trials, move):
    sweep = api.run(write_sweep(), gpus="none", slots=1, mirror=folder)
    before, winner, former = sweep.trials(), sweep.best().overall.winner, Mirror(folder, tell=print)
    move()
    done = restore(folder)
    assert (done.sweeps, done.trials, done.unfinished, done.set_aside) == ([sweep.id], 3, 0, None)
    again = api.sweep()
    assert again.trials() == before
    assert again.best().overall.winner == winner
    assert (home() / "sweeps" / sweep.id / "trials" / winner.record.trial_id / "result.json").is_file()
    move(".fersweep")  # the former machine, if it is not gone
    with pytest.raises(StorageError, match="restored to another home"):
        former.copy()
    with pytest.raises(InputError, match="this is the mirror of another home") as refused:
        Mirror(folder, tell=print)
    assert "fersweep restore" in refused.value.hint


def test_a_trial_that_was_running_resumes_from_its_copied_checkpoint(
    write_sweep, folder, played_trials, move, monkeypatch
):
    def copied_in_the_middle(trial):
        trial.begin()
        trial.train(5)
        copy_home(folder)
        played_trials.script = train_all
        return train_all(trial)

    played_trials.script = copied_in_the_middle
    sweep = api.create(write_sweep(trials=2, epochs=8)).id
    api.sweep(sweep).agent(gpus="none", slots=1, count=1)
    shutil.rmtree(home())  # the machine and its disk are gone, and nothing after the copy is known
    move()
    # Its leases are another host's here, of which nothing is known; without restoring they would last a minute.
    monkeypatch.setattr("fer_sweep.owners._host", lambda: "another-host/000000000000")
    done = restore(folder)
    assert (done.trials, done.unfinished) == (1, 1)
    (record,) = api.sweep(sweep).trials()
    assert (record.attempt, str(record.state)) == (1, "running")
    trial = home() / "sweeps" / sweep / "trials" / "0"
    assert (trial / "last.ckpt").is_file()
    assert [row["epoch"] for row in find(sweep).reports("0")] == [1, 2, 3, 4, 5]
    with closing(sqlite3.connect(home() / "sweeps.db")) as raw:
        assert raw.execute("SELECT lease_until FROM fersweep_trials").fetchall() == [(0.0,)]

    api.sweep(sweep).agent(gpus="none", slots=1, mirror=folder)
    first, second = api.sweep(sweep).trials()
    assert (first.attempt, second.attempt) == (2, 1)
    assert (str(first.state), str(second.state)) == ("complete", "complete")
    epochs = [json.loads(line)["epoch"] for line in (trial / "history.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 9))
    assert first.result.epochs == 8
    assert (folder / "sweeps" / sweep / "trials" / "1" / "result.json").is_file()


def test_a_trial_begun_after_the_database_was_copied_is_dropped_and_proposed_again(
    write_sweep, folder, played_trials, move, monkeypatch
):
    sweep = api.create(write_sweep())
    sweep.agent(gpus="none", slots=1, count=1)
    copy_home(folder)
    trials = folder / "sweeps" / sweep.id / "trials"
    shutil.copytree(trials / "0", trials / "1")
    (trials / "1" / "marker").touch()  # another configuration's files than trial 1 will have
    (trials / "0" / ".last.ckpt.0123abcd").touch()  # of a copy that was killed
    move()
    with monkeypatch.context() as patch:
        patch.setattr("fer_sweep.mirror.restoring.write_mark", Mock(side_effect=StorageError("read-only")))
        restore(folder)
    with pytest.raises(InputError, match="this is the mirror of another home"):
        Mirror(folder, tell=print)
    restore(folder)  # again, now that it is writable: nothing is lost
    restored = home() / "sweeps" / sweep.id / "trials"
    assert [path.name for path in restored.iterdir()] == ["0"] and not list(restored.rglob(".*"))
    api.sweep().agent(gpus="none", slots=1, mirror=folder)
    assert [str(record.state) for record in api.sweep().trials()] == ["complete"] * 3
    assert not (trials / "1" / "marker").exists() and not list(trials.rglob(".*"))
    assert (trials / "1" / "config.json").read_bytes() != (trials / "0" / "config.json").read_bytes()


def test_a_home_with_other_or_newer_sweeps_is_kept_unless_forced_and_a_busy_one_always(
    shell, write_sweep, folder, played_trials
):
    sweep = api.create(write_sweep())
    sweep.agent(gpus="none", slots=1, count=1)
    copy_home(folder)
    mirrored = sweep.trials()
    left = home().with_name(f".{home().name}.restoring-0123abcd")  # by one that was killed
    left.mkdir()
    restore(folder)  # the same: nothing would be lost
    assert not left.exists()
    sweep.agent(gpus="none", slots=1, count=1)
    code, _, err = shell("restore", str(folder))
    assert code == 2 and f": sweep {sweep.id}" in err and "with force" in err
    assert len(sweep.trials()) == 2
    other = api.create(write_sweep())
    with pytest.raises(InputError, match=other.id):
        restore(folder)
    code, out, err = shell("restore", str(folder), "--force", "--json")
    assert code == 0 and f"next: fersweep agent --mirror {folder}" in err
    assert sweep.trials() == mirrored
    assert (Path(json.loads(out)["set_aside"]) / "sweeps" / other.id / "sweep.json").is_file()
    with closing(find(sweep.id).search()) as search:
        search.next_trial("cpu0")
        with pytest.raises(InputError, match=f"an agent is running in .*{sweep.id}/1"):
            restore(folder, force=True)


DAMAGE = {
    "cut database": (lambda folder: os.truncate(folder / "sweeps.db", 10_000), StorageError, "damaged"),
    "other content": (lambda folder: (folder / "sweeps.db").write_bytes(b"none" * 999), StorageError, "damaged"),
    "no sweep": (lambda folder: (folder / "sweeps.db").unlink(), NothingToDo, "contains no sweep"),
    "mark": (lambda folder: (folder / "mirror.json").write_text("[1]"), StorageError, "cannot be read"),
    "other folder": (lambda folder: (folder / "mirror.json").unlink(), NothingToDo, "no mirror"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_mirror_is_refused_and_nothing_is_changed(name, write_sweep, folder, tmp_path, move):
    damage, error, words = DAMAGE[name]
    api.create(write_sweep())
    copy_home(folder)
    damage(folder)
    move()
    with pytest.raises(error, match=words):
        restore(folder)
    assert not home().exists()
    assert not list(tmp_path.glob(".*restoring*"))
