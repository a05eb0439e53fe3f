"""Update the mirror in a thread, in an order that leaves it usable wherever the copy is interrupted.

- The database is copied first and put in place last, so that it is never newer than the trials' files.
- Of a trial, ``result.json`` is read first and put in place last: where it exists, all other files are final. The
  checkpoint comes next, so that the best weights are never older than it.
- Each file is read through one open descriptor and replaced atomically.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from filelock import FileLock

from fer_sweep.errors import FersweepError, InputError, StorageError
from fer_sweep.files import LAST_CHECKPOINT, atomic_path, home, write_atomically
from fer_sweep.mirror.mark import (
    DATABASE,
    MARK,
    NAME,
    check_mirror,
    folders,
    home_name,
    is_own,
    read_mark,
    write_mark,
    writing,
)
from fer_sweep.store.backup import snapshot
from fer_sweep.store.sqlite import PREFIX

EVERY_S = 60.0
"""Seconds between two copies while no trial ends."""
REST_S = 5.0
"""Least seconds between two copies, and four times as long as the last one took."""
STALLED_S = 60.0
"""Seconds without progress after which the last copy is abandoned: the drive hangs."""

_FIRST = ("result.json", LAST_CHECKPOINT)
_LEFT_OUT = frozenset({"previous.ckpt"})
"""Replaces a damaged last.ckpt and is as large; a mirror's files are intact."""
_CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
"""Temporary files that ``atomic_path`` leaves behind when it is killed."""
_log = logging.getLogger(__name__)

_Version = tuple[int, int, int]
"""Of a file: inode, bytes, modification time in nanoseconds."""


def check_mirrored(storage: str | None) -> None:
    """Check that a mirror of the home includes the state of a search.

    Raises:
        InputError: The state or the checkpoints are elsewhere.
    """
    if place := os.environ.get("FERSWEEP_CHECKPOINTS"):
        raise InputError(
            f"--mirror copies {home()}, but FERSWEEP_CHECKPOINTS puts checkpoints into {place}", hint="unset it"
        )
    if storage is not None and storage.startswith(PREFIX):
        raise InputError(
            f"--mirror copies {home()}, but the state of this sweep is in {storage.removeprefix(PREFIX)}",
            hint="create the sweep without --storage",
        )


class Mirror:
    """Copies this home to a folder during the block and once at its end. Its failures do not stop the agent."""

    def __init__(
        self, folder: Path, *, tell: Callable[[str], None], every_s: float = EVERY_S, rest_s: float = REST_S
    ) -> None:
        """Check the folder; copy nothing yet.

        Args:
            folder: On a drive that outlives this machine.
            tell: Receives a line when copying fails and when it works again; called from another thread.
            every_s: Seconds between two copies while no trial ends.
            rest_s: Least seconds between two copies.

        Raises:
            InputError: This home cannot be copied there.
        """
        check_mirror(folder)
        self.folder = folder.resolve()
        self._tell = tell
        self._every_s, self._rest_s = every_s, rest_s
        self._home = home()
        self._name = home_name()
        write_mark(self.folder, home=self._name, copied=_copied(self.folder))
        self._copied: dict[Path, _Version] = {}
        self._database = ""  # SHA-256 of the mirrored database
        self._cleaned = False
        self._failing = False
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
        lock = self._home / ".mirror.lock"
        with writing(lock), FileLock(lock):  # for the agents of this home
            self._check_owner()
            if not self._cleaned:
                self._clean()
                self._cleaned = True
            with tempfile.TemporaryDirectory(prefix="fersweep-mirror-") as aside:
                database = Path(aside) / DATABASE
                if (self._home / DATABASE).is_file():
                    snapshot(self._home / DATABASE, database)
                self._copy_files(self._home, self.folder)
                for sweep in folders(self._home / "sweeps"):
                    for trial in folders(sweep / "trials"):
                        self._copy_trial(trial)
                    self._copy_files(sweep, self._target(sweep))
                if database.is_file():
                    self._put_database(database)
            write_mark(self.folder, home=self._name, copied=time.time())

    def _keep(self) -> None:
        while True:
            is_last = self._closing.is_set()
            began = time.monotonic()
            try:
                self.copy()
            except _NotOurs as error:
                self._tell(f"mirror: {error}")
                return
            except Exception as error:  # no error of a drive may stop the trials
                self._fail(error, is_last=is_last)
            else:
                if self._failing:
                    self._tell("mirror: up to date again")
                self._failing = False
            if is_last:
                return
            self._nudged.wait(self._every_s)
            self._nudged.clear()
            self._closing.wait(max(self._rest_s, 4 * (time.monotonic() - began) if self._rest_s else 0.0))

    def _fail(self, error: Exception, *, is_last: bool) -> None:
        if not isinstance(error, FersweepError):
            _log.debug("mirror", exc_info=error)
        if is_last:
            self._tell(f"mirror: the last copy failed, the mirror is older: {error}")
        elif not self._failing:
            self._tell(f"mirror: {error}; trials continue, and the copy is retried every {self._every_s:g} s")
        self._failing = True

    def _check_owner(self) -> None:
        try:
            mark = read_mark(self.folder)
        except FersweepError as error:
            raise StorageError(f"{self.folder} is unmounted or empty", hint="mount it again") from error
        if mark.home != self._name and not is_own(mark):
            raise _NotOurs(f"{self.folder} has been restored to another home, which owns it now; copying has stopped")

    def _clean(self) -> None:
        """Remove temporary files, and trials that this home does not have or has with another configuration."""
        with writing(self.folder):
            for path in [
                *self.folder.glob(".*"),
                *self.folder.glob("sweeps/*/.*"),
                *self.folder.glob("sweeps/*/trials/*/.*"),
            ]:
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            for trial in self.folder.glob("sweeps/*/trials/*"):
                source = self._home / trial.relative_to(self.folder)
                if _content(source / "config.json") != _content(trial / "config.json"):
                    shutil.rmtree(trial)

    def _copy_trial(self, source: Path) -> None:
        target = self._target(source)
        others = sorted(path.name for path in source.iterdir() if path.name not in (*_FIRST, *_LEFT_OUT))
        is_over = (source / "result.json").is_file()
        self._copy_together(source, target, [*_FIRST, *others])
        if is_over:
            with writing(target):
                (target / LAST_CHECKPOINT).unlink(missing_ok=True)

    def _copy_files(self, source: Path, target: Path) -> None:
        for path in sorted(source.iterdir()):
            if not path.name.startswith(DATABASE) and path.name not in (MARK, NAME):
                self._copy_together(source, target, [path.name])

    def _copy_together(self, source: Path, target: Path, names: Sequence[str]) -> None:
        """Copy files in this order, and replace them in reverse order once all are copied."""
        done: dict[Path, _Version] = {}
        with contextlib.ExitStack() as putting_in_place:
            for name in names:
                path = source / name
                if name.startswith(".") or path.is_symlink() or not path.is_file():
                    continue
                with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                    status = os.fstat(stream.fileno())
                    version = (status.st_ino, status.st_size, status.st_mtime_ns)
                    if self._copied.get(path) == version:
                        continue
                    done[path] = version
                    if path not in self._copied and _is_same(target / name, status):
                        continue
                    temporary = putting_in_place.enter_context(atomic_path(target / name))
                    with writing(target / name), temporary.open("wb") as copy:
                        while chunk := stream.read(_CHUNK):
                            copy.write(chunk)
                            self._moved_at = time.monotonic()
                    with contextlib.suppress(OSError):  # by which the next agent skips this file
                        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        self._copied.update(done)
        self._moved_at = time.monotonic()

    def _put_database(self, database: Path) -> None:
        content = database.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != self._database:
            write_atomically(self.folder / DATABASE, content)
            self._database = digest

    def _target(self, source: Path) -> Path:
        return self.folder / source.relative_to(self._home)


class _NotOurs(StorageError):
    """The mirror belongs to another home now."""


def _copied(folder: Path) -> float:
    return read_mark(folder).copied if (folder / MARK).exists() else 0.0


def _is_same(target: Path, source: os.stat_result) -> bool:
    """Whether an earlier agent has copied this version of a file; false on drives that store no times."""
    try:
        found = target.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns // 1000) == (source.st_size, source.st_mtime_ns // 1000)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
