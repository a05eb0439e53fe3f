"""A home is copied while it changes; whatever happens to the drive, trials continue and the copy is usable."""

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import fer_sweep.mirror.copying as copying
from fer_sweep import api
from fer_sweep.errors import InputError, StorageError
from fer_sweep.files import atomic_path, home
from fer_sweep.mirror.copying import Mirror
from fer_sweep.mirror.mark import MARK, read_mark, write_mark

pytestmark = pytest.mark.usefixtures("played_trials")

WAIT_S = 20.0
"""Bounds a failing test only."""


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".", "sweeps.db")) and path.name not in (MARK, "home.json")
    }


def trial_in(sweep: str, number: int) -> Path:
    folder = home() / "sweeps" / sweep / "trials" / str(number)
    folder.mkdir(parents=True)
    for name in ("config.json", "history.jsonl", "best.safetensors", "last.ckpt", "previous.ckpt", "trial.log"):
        (folder / name).write_text(f"{name} 1")
    return folder


def test_an_agent_leaves_a_whole_copy_of_the_home(sweep_file: Path, drive: Path) -> None:
    sweep = api.run(sweep_file, gpus="none", slots=1, mirror=drive / "fersweep")
    mirrored = files_below(drive / "fersweep")
    assert mirrored == files_below(home())
    assert {f"sweeps/{sweep.id}/trials/{n}/result.json" for n in range(3)} <= mirrored.keys()
    assert not list((drive / "fersweep").rglob(".*"))
    with sqlite3.connect(f"file:{drive}/fersweep/sweeps.db?mode=ro&immutable=1", uri=True) as raw:
        assert raw.execute("SELECT COUNT(*) FROM fersweep_trials WHERE state = 'complete'").fetchone() == (3,)
    raw.close()


def test_only_what_changed_is_copied_and_checkpoints_of_finished_trials_go(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trial_in("abc", 0)
    mirror = Mirror(drive / "m", tell=print)
    written: list[str] = []

    def noted(path: Path) -> AbstractContextManager[Path]:
        written.append(path.name)
        return atomic_path(path)

    monkeypatch.setattr(copying, "atomic_path", noted)
    mirror.copy()
    assert sorted(written) == ["best.safetensors", "config.json", "history.jsonl", "last.ckpt", "trial.log"]
    written.clear()
    mirror.copy()
    assert written == []
    (folder / "new.ckpt").write_text("last.ckpt 2")
    (folder / "new.ckpt").replace(folder / "last.ckpt")
    mirror.copy()
    assert written == ["last.ckpt"]
    Mirror(drive / "m", tell=print).copy()
    assert written == ["last.ckpt"], "a further agent of this home knows what is there"
    (folder / "last.ckpt").unlink()
    mirror.copy()
    copy = drive / "m" / "sweeps" / "abc" / "trials" / "0"
    assert (copy / "last.ckpt").read_text() == "last.ckpt 2"  # it is away for a moment while a new one is put in place
    (folder / "result.json").write_text("{}")
    mirror.copy()
    assert not (copy / "last.ckpt").exists()
    assert (copy / "result.json").exists()


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_a_copy_cut_off_anywhere_has_no_result_or_checkpoint_without_its_files(
    stop_at: int, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trial_in("abc", 0)
    mirror = Mirror(drive / "m", tell=print)
    mirror.copy()
    for path in folder.iterdir():
        path.write_text(f"{path.name} 22")
    (folder / "result.json").write_text("result.json 22")
    replace, count = Path.replace, 0

    def replace_some(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == stop_at:
            raise OSError(errno.EIO, "unplugged")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_some)
        with pytest.raises(StorageError, match="unplugged"):
            mirror.copy()
    copy = drive / "m" / "sweeps" / "abc" / "trials" / "0"
    new = {path.name for path in copy.iterdir() if path.read_text().endswith("22")}
    if "result.json" in new:
        assert {"best.safetensors", "history.jsonl", "last.ckpt"} <= new
    if "last.ckpt" in new:
        assert {"best.safetensors", "history.jsonl"} <= new


def test_a_full_drive_is_reported_and_trials_continue(
    sweep_file: Path, drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(target: Path) -> AbstractContextManager[Path]:
        if drive in target.parents:
            raise StorageError(f"cannot write {target}: {os.strerror(errno.ENOSPC)}")
        return atomic_path(target)

    monkeypatch.setattr(copying, "atomic_path", no_room)
    sweep = api.run(sweep_file, gpus="none", slots=1, mirror=drive / "m")
    said = capsys.readouterr().out
    assert [str(record.state) for record in sweep.trials()] == ["complete"] * 3
    assert said.count("No space left on device") <= 2
    assert "mirror: the last copy failed" in said


class Nudged(Mirror):
    """Copies when it is nudged alone; ``again`` has it done and waits for it."""

    def __init__(self, folder: Path, tell: Callable[[str], None] = print) -> None:
        super().__init__(folder, tell=tell, every_s=3600.0, rest_s=0.0)
        self._rounds = threading.Semaphore(0)

    def copy(self) -> None:
        try:
            super().copy()
        finally:
            self._rounds.release()

    def wait(self) -> None:
        assert self._rounds.acquire(timeout=WAIT_S)

    def again(self) -> None:
        self.nudge()
        self.wait()


def test_an_unmounted_drive_is_reported_once_and_not_written_below_and_its_return_is_reported(drive: Path) -> None:
    told: list[str] = []
    with Nudged(drive / "m", told.append) as mirror:
        mirror.wait()
        (drive / "m").rename(drive / "away")
        trial_in("abc", 0)
        mirror.again()
        mirror.again()
        assert not (drive / "m").exists()
        (drive / "away").rename(drive / "m")
        mirror.again()
        assert (drive / "m" / "sweeps" / "abc" / "trials" / "0" / "last.ckpt").exists()
    assert len(told) == 2
    assert "unmounted" in told[0] and "trials go on" in told[0]
    assert "up to date again" in told[1]


def test_a_drive_that_hangs_does_not_delay_the_end(drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    let_go = threading.Event()
    monkeypatch.setattr(copying, "STALLED_S", 0.0)
    mirror = Mirror(drive / "m", tell=told.append)
    monkeypatch.setattr(mirror, "copy", lambda: let_go.wait(WAIT_S))
    with mirror:
        pass
    let_go.set()
    assert "does not answer" in told[0]


def test_a_mirror_restored_elsewhere_belongs_to_its_new_home(drive: Path) -> None:
    trial_in("abc", 0)
    mirror = Mirror(drive / "m", tell=print)
    mirror.copy()
    write_mark(drive / "m", home="another")
    with pytest.raises(StorageError, match="restored to another home"):
        mirror.copy()
    with pytest.raises(InputError, match="mirror of another home") as refused:
        Mirror(drive / "m", tell=print)
    assert "fersweep restore" in str(refused.value.hint)
    assert read_mark(drive / "m").home == "another"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere/m", "there is no folder"),
        (".fersweep/m", "lies in the other"),
        (".", "lies in the other"),
        ("a-file", "is a file"),
        ("full", "holds other files, such as thesis.pdf"),
    ],
)
def test_an_unsuitable_folder_is_refused_before_a_sweep_is_created(
    place: str, words: str, sweep_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.pdf").touch()
    with pytest.raises(InputError, match=words):
        api.run(sweep_file, gpus="none", mirror=tmp_path / place)
    assert not (home() / "sweeps").exists()


def test_a_sweep_in_another_database_cannot_be_mirrored(sweep_file: Path, drive: Path, tmp_path: Path) -> None:
    sweep = api.create(sweep_file, storage=f"sqlite:///{tmp_path}/else.db")
    with pytest.raises(InputError, match=r"lies in .*else\.db"):
        sweep.agent(gpus="none", mirror=drive / "m")


def test_links_in_a_home_are_not_followed(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (trial_in("abc", 0) / "link").symlink_to(tmp_path / "secret")
    Mirror(drive / "m", tell=print).copy()
    assert not (drive / "m" / "sweeps" / "abc" / "trials" / "0" / "link").exists()


def test_temporary_files_of_a_killed_copy_and_unknown_trials_are_removed(drive: Path) -> None:
    trial_in("abc", 0)
    Mirror(drive / "m", tell=print).copy()
    trials = drive / "m" / "sweeps" / "abc" / "trials"
    (trials / "0" / ".last.ckpt.0123abcd").touch()
    shutil.copytree(trials / "0", trials / "1")
    Mirror(drive / "m", tell=print).copy()
    assert [path.name for path in trials.iterdir()] == ["0"]
    assert not (trials / "0" / ".last.ckpt.0123abcd").exists()
