"""The copy of this home on a drive: who owns it, and how a thread keeps it up to date.

A restored home gets a new name and writes it into the mirror. So the former machine, if it still runs, stops copying
over the work of its successor, and a new empty home cannot overwrite the mirror of a former one.

The order of copying leaves the mirror usable wherever it is interrupted:

- The database is copied first and put in place last, so that it is never newer than the trials' files.
- Of a trial, ``result.json`` is read first and put in place last: where it exists, all other files are final. The
  checkpoint comes next, so that the best weights are never older than it.
- Each file is read through one open descriptor and replaced atomically.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock

from fer_sweep.errors import FersweepError, InputError, NothingToDo, StorageError, writing
from fer_sweep.files import LAST_CHECKPOINT, atomic_path, home, read_json, read_object, write_atomically
from fer_sweep.store.backup import snapshot
from fer_sweep.store.sqlite import PREFIX

MARK = "mirror.json"
"""In the mirror."""
NAME = "home.json"
"""In the home."""
DATABASE = "sweeps.db"
EVERY_S = 60.0
"""Seconds between two copies while no trial ends."""
REST_S = 5.0
"""Least seconds between two copies, and four times as long as the last one took."""
STALLED_S = 60.0
"""Seconds without progress after which the last copy is abandoned: the drive hangs."""

_FIRST = ("result.json", LAST_CHECKPOINT, "sweep.json")
_LEFT_OUT = "previous.ckpt"
"""Replaces a damaged last.ckpt and is as large; a mirror's files are intact."""
_CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
"""Temporary files that ``atomic_path`` leaves behind when it is killed."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mark:
    """The owner of a mirror."""

    home: str
    """The name of the home."""
    copied: float = 0.0
    """When the last copy was completed: Unix time, seconds; 0 for never."""


def home_name() -> str:
    """The name of this home, generated at the first call."""
    return read_object(home() / NAME).get("name") or name_home(home())


def name_home(folder: Path) -> str:
    """Give a home a new name."""
    name = secrets.token_hex(8)
    write_atomically(folder / NAME, json.dumps({"name": name}) + "\n")
    return name


def read_mark(folder: Path) -> Mark:
    """Read the mark of a mirror.

    Raises:
        NothingToDo: The folder does not exist, or is no mirror.
        StorageError: The mark cannot be read.
    """
    path = folder / MARK
    try:
        found = read_json(path)
        return Mark(str(found["home"]), float(found["copied"]))
    except FileNotFoundError:
        raise NothingToDo(f"no mirror in {folder}", hint="mount the drive, or give the folder of `--mirror`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} cannot be read: {error}", hint="check that the drive is mounted and intact"
        ) from error


def write_mark(folder: Path, mark: Mark) -> None:
    """Write the mark of a mirror; StorageError if the drive is full, unmounted or read-only."""
    write_atomically(folder / MARK, json.dumps(asdict(mark)) + "\n")


def check_mirror(folder: Path, storage: str | None) -> None:
    """Check that a search can be mirrored to a folder; create the folder if its parent exists.

    Args:
        folder: The mirror.
        storage: The URL of the search's database; None for that of this home.

    Raises:
        InputError: The drive is not mounted, the folder has other content or is the mirror of another home, or the
            state or the checkpoints of the search are outside this home.
    """
    here = home()
    if place := os.environ.get("FERSWEEP_CHECKPOINTS"):
        raise InputError(
            f"mirror copies {here}, but FERSWEEP_CHECKPOINTS puts checkpoints into {place}", hint="unset it"
        )
    if storage is not None and storage.startswith(PREFIX):
        raise InputError(
            f"mirror copies {here}, but the state of this sweep is in {storage.removeprefix(PREFIX)}",
            hint="create the sweep without storage",
        )
    target = folder.resolve()
    if target.is_relative_to(here.resolve()) or here.resolve().is_relative_to(target):
        raise InputError(
            f"mirror {folder}: one of this folder and {here} contains the other", hint="give another folder"
        )
    # Parents are not created: below an unmounted drive they would be on this machine's own disk.
    if not target.parent.is_dir():
        raise InputError(
            f"mirror {folder}: folder {target.parent} not found", hint="mount the drive first, or create the folder"
        )
    try:
        target.mkdir(exist_ok=True)
        content = [path.name for path in target.iterdir()]
    except OSError as error:
        raise InputError(f"mirror {folder}: {error.strerror or error}", hint="give a writable folder") from error
    if content and MARK not in content:
        raise InputError(
            f"mirror {folder}: the folder contains other files, such as {content[0]}",
            hint=f"give an empty folder, such as {folder / 'fersweep'}",
        )
    if content and (mark := read_mark(target)).home != home_name():
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(mark.copied)) if mark.copied else "never"
        raise InputError(
            f"mirror {folder}: this is the mirror of another home (last copied: {when})",
            hint=f"continue its sweeps: fersweep restore {folder}; or give another folder",
        )


def folders(parent: Path) -> list[Path]:
    """The folders in another one by name, without hidden ones; none if it does not exist."""
    return sorted(parent.glob("[!.]*/"))


def is_mirrored(path: Path) -> bool:
    """Whether a path is a file that is copied as it is: no link, no hidden file, no database, no name of a home."""
    is_own_file = path.name.startswith((".", DATABASE)) or path.name in (MARK, NAME)
    return path.is_file() and not path.is_symlink() and not is_own_file


class Mirror:
    """Copies this home to a folder during the block and once at its end. Its failures do not stop the agent."""

    def __init__(self, folder: Path, storage: str | None = None, *, tell: Callable[[str], None]) -> None:
        """Check the folder as ``check_mirror`` does; copy nothing yet.

        Args:
            folder: On a drive that outlives this machine.
            storage: The URL of the search's database; None for that of this home.
            tell: Receives a line when copying fails and when it works again; called from another thread.
        """
        check_mirror(folder, storage)
        self.folder = folder.resolve()
        self._tell = tell
        self._home = home()
        self._name = home_name()
        if not (self.folder / MARK).exists():
            write_mark(self.folder, Mark(self._name))
        self._copied: dict[Path, tuple[int, int, int]] = {}  # inode, bytes, modification time in nanoseconds
        self._nudged, self._closing = threading.Event(), threading.Event()
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="mirror")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._nudged.set()
        self._moved_at = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.5)
            if time.monotonic() - self._moved_at > STALLED_S:
                self._tell(f"mirror: {self.folder} does not respond; its last copy is incomplete")
                return

    def nudge(self) -> None:
        """Copy soon, since a trial has ended."""
        self._nudged.set()

    def copy(self) -> None:
        """Update the mirror.

        Raises:
            StorageError: It cannot be written; its former content is usable.
        """
        with writing(self.folder), FileLock(self._home / ".mirror.lock"):  # for the agents of this home
            self._check_owner()
            if not self._copied:  # the first time
                self._clean()
            with tempfile.TemporaryDirectory(prefix="fersweep-mirror-") as aside:
                database = Path(aside) / DATABASE
                if (self._home / DATABASE).is_file():
                    snapshot(self._home / DATABASE, database)
                self._copy_files(self._home)
                for sweep in folders(self._home / "sweeps"):
                    for trial in folders(sweep / "trials"):
                        self._copy_files(trial)
                    self._copy_files(sweep)
                if database.is_file():
                    with atomic_path(self.folder / DATABASE) as temporary:
                        shutil.copyfile(database, temporary)
            self._check_owner()  # if the drive was unmounted meanwhile, the mark must not replace the missing one
            write_mark(self.folder, Mark(self._name, time.time()))

    def _keep(self) -> None:
        failing = False
        while True:
            is_last = self._closing.is_set()
            began = time.monotonic()
            try:
                self.copy()
            except _NotOurs as error:
                self._tell(f"mirror: {error}")
                return
            except Exception as error:  # no error of a drive may stop the trials
                if not isinstance(error, FersweepError):
                    _log.debug("mirror", exc_info=error)
                if is_last:
                    self._tell(f"mirror: the last copy failed, the mirror is older: {error}")
                elif not failing:
                    self._tell(f"mirror: {error}; trials continue, and the copy is retried every {EVERY_S:g} s")
                failing = True
            else:
                if failing:
                    self._tell("mirror: up to date again")
                failing = False
            if is_last:
                return
            took = time.monotonic() - began
            self._nudged.wait(EVERY_S)
            self._nudged.clear()
            self._closing.wait(max(REST_S, 4 * took))

    def _check_owner(self) -> None:
        try:
            mark = read_mark(self.folder)
        except FersweepError as error:
            raise StorageError(f"{self.folder} is unmounted or empty", hint="mount it again") from error
        if mark.home != self._name:
            raise _NotOurs(f"{self.folder} has been restored to another home, which owns it now; copying has stopped")

    def _clean(self) -> None:
        """Remove temporary files, and trials that this home does not have or has with another configuration."""
        for path in self.folder.rglob(".*"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
        for trial in self.folder.glob("sweeps/*/trials/*"):
            source = self._home / trial.relative_to(self.folder)
            if read_object(source / "config.json") != read_object(trial / "config.json"):
                shutil.rmtree(trial)

    def _copy_files(self, source: Path) -> None:
        """Copy the files of a folder, _FIRST first, and put them in place in reverse order once all are copied."""
        target = self.folder / source.relative_to(self._home)
        present = {path.name for path in source.iterdir() if is_mirrored(path)} - {_LEFT_OUT}
        names = [*(name for name in _FIRST if name in present), *sorted(present.difference(_FIRST))]
        done: dict[Path, tuple[int, int, int]] = {}
        with contextlib.ExitStack() as putting_in_place:
            for name in names:
                path = source / name
                try:
                    stream = putting_in_place.enter_context(path.open("rb"))
                except FileNotFoundError:  # deleted meanwhile
                    continue
                status = os.fstat(stream.fileno())
                version = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._copied.get(path) == version:
                    continue
                done[path] = version
                if path not in self._copied and _is_same(target / name, status):
                    continue
                temporary = putting_in_place.enter_context(atomic_path(target / name))
                with temporary.open("wb") as copy:
                    while chunk := stream.read(_CHUNK):
                        copy.write(chunk)
                        self._moved_at = time.monotonic()
                with contextlib.suppress(OSError):  # by which the next agent skips this file
                    os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        self._copied.update(done)
        self._moved_at = time.monotonic()
        if "result.json" in present:
            (target / LAST_CHECKPOINT).unlink(missing_ok=True)


class _NotOurs(StorageError):
    """The mirror belongs to another home now."""


def _is_same(target: Path, source: os.stat_result) -> bool:
    """Whether an earlier agent has copied this version of a file; false on drives that store no times."""
    try:
        found = target.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns // 1000) == (source.st_size, source.st_mtime_ns // 1000)
