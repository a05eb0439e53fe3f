"""Keeping the mirror: a thread that copies what changed, in an order that leaves it usable wherever it is cut off.

- The database is copied first and put in place last, so what it says of a trial is never newer than the trial's files.
- Of a trial, ``result.json`` is read first and put in place last: where it is, everything else is final. Then the
  checkpoint, likewise, so that the best weights beside it are never older than it.
- Each file is read through one open descriptor and takes its place whole.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from fer_sweep.errors import FersweepError, InputError, StorageError, cannot_write
from fer_sweep.files import LAST_CHECKPOINT, atomic_path, home, write_atomically
from fer_sweep.mirror.mark import DATABASE, MARK, NAME, check_mirror, home_name, is_own, read_mark, write_mark
from fer_sweep.store.backup import snapshot
from fer_sweep.store.sqlite import PREFIX

EVERY_S = 60.0
"""Between two copies while nothing ends."""
REST_S = 5.0
"""Between two copies at least, however fast trials end; and four times as long as the last one took."""
STALLED_S = 60.0
"""A last copy in which nothing has moved for so long is given up: the drive hangs."""

_FIRST = ("result.json", LAST_CHECKPOINT)
_LEFT_OUT = frozenset({"previous.ckpt"})
"""Takes the place of a damaged last.ckpt, and is as large; a mirror's files are whole."""
_CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
"""What ``atomic_path`` leaves behind where it is killed."""
_log = logging.getLogger(__name__)

_Mark = tuple[int, int, int]
"""Inode, bytes, time of the last change in nanoseconds."""


def check_mirrored(storage: str | None) -> None:
    """See that a mirror of the home holds the state of a search.

    Raises:
        InputError: It, or the checkpoints, lie elsewhere.
    """
    if place := os.environ.get("FERSWEEP_CHECKPOINTS"):
        raise InputError(
            f"--mirror copies {home()}, but FERSWEEP_CHECKPOINTS has checkpoints go to {place}", hint="unset it"
        )
    if storage is not None and storage.startswith(PREFIX):
        raise InputError(
            f"--mirror copies {home()}, but this sweep's search lies in {storage.removeprefix(PREFIX)}",
            hint="create the sweep without --storage",
        )


class Mirror:
    """Copies this home to a folder while the block lasts, and once more at its end. Its failures end nothing."""

    def __init__(
        self, folder: Path, *, tell: Callable[[str], None], every_s: float = EVERY_S, rest_s: float = REST_S
    ) -> None:
        """Make ready; nothing is copied yet.

        Args:
            folder: On a drive that outlives this machine.
            tell: Gets a line when copying fails, and when it works again; called in another thread.
            every_s: Between two copies while no trial ends.
            rest_s: Between two copies at least.

        Raises:
            InputError: This home may not be copied there.
        """
        check_mirror(folder)
        self.folder = folder.resolve()
        self._tell = tell
        self._every_s, self._rest_s = every_s, rest_s
        self._home = home()
        self._name = home_name()
        write_mark(self.folder, home=self._name, copied=_copied(self.folder))
        self._copied: dict[Path, _Mark] = {}
        """What each file was when it was copied."""
        self._database = ""
        """SHA-256 of the database in place."""
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
                self._tell(f"mirror: {self.folder} does not answer; its last copy is not whole")
                return

    def nudge(self) -> None:
        """Something has ended: copy soon."""
        self._nudged.set()

    def copy(self) -> None:
        """Bring the mirror up to date.

        Raises:
            StorageError: It could not be done; what is there is usable.
        """
        with _one_at_a_time(self._home / ".mirror.lock"):
            self._see_that_it_is_ours()
            if not self._cleaned:
                self._clean()
                self._cleaned = True
            with tempfile.TemporaryDirectory(prefix="fersweep-mirror-") as aside:
                database = Path(aside) / DATABASE
                if (self._home / DATABASE).is_file():
                    snapshot(self._home / DATABASE, database)
                self._copy_files(self._home, self.folder)
                for sweep in _folders(self._home / "sweeps"):
                    for trial in _folders(sweep / "trials"):
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
            except Exception as error:  # whatever a drive does, trials go on
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
            self._tell(f"mirror: the last copy failed, what is there is older: {error}")
        elif not self._failing:
            self._tell(f"mirror: {error}; trials go on, and it is tried again every {self._every_s:g} s")
        self._failing = True

    def _see_that_it_is_ours(self) -> None:
        try:
            mark = read_mark(self.folder)
        except FersweepError as error:
            raise StorageError(f"{self.folder} is unmounted or has been emptied", hint="mount it again") from error
        if mark.home != self._name and not is_own(mark):
            raise _NotOurs(f"{self.folder} has been restored to another home, and is that one's now; no more is copied")

    def _clean(self) -> None:
        """Remove what was left half written, and the trials that this home knows nothing of or calls otherwise."""
        with _writing(self.folder):
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
            with _writing(target):
                (target / LAST_CHECKPOINT).unlink(missing_ok=True)

    def _copy_files(self, source: Path, target: Path) -> None:
        for path in sorted(source.iterdir()):
            if not path.name.startswith(DATABASE) and path.name not in (MARK, NAME):
                self._copy_together(source, target, [path.name])

    def _copy_together(self, source: Path, target: Path, names: Sequence[str]) -> None:
        """Copy files read in this order, and put them in place in the reverse one once all are there."""
        done: dict[Path, _Mark] = {}
        with contextlib.ExitStack() as putting_in_place:
            for name in names:
                path = source / name
                if name.startswith(".") or path.is_symlink() or not path.is_file():
                    continue
                with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                    status = os.fstat(stream.fileno())
                    mark = (status.st_ino, status.st_size, status.st_mtime_ns)
                    if self._copied.get(path) == mark:
                        continue
                    done[path] = mark
                    if path not in self._copied and _is_same(target / name, status):
                        continue
                    temporary = putting_in_place.enter_context(atomic_path(target / name))
                    with _writing(target / name), temporary.open("wb") as copy:
                        while chunk := stream.read(_CHUNK):
                            copy.write(chunk)
                            self._moved_at = time.monotonic()
                    with contextlib.suppress(OSError):  # the next agent knows by it that this file need not be copied
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
    """Another home has taken the mirror over."""


def _copied(folder: Path) -> float:
    return read_mark(folder).copied if (folder / MARK).exists() else 0.0


def _is_same(target: Path, source: os.stat_result) -> bool:
    """Whether a file of an earlier agent's copying is what would be copied; drives that keep no times say no."""
    try:
        found = target.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns // 1000) == (source.st_size, source.st_mtime_ns // 1000)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != ".")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Agents of one home take turns; the kernel drops the lock with its process."""
    with _writing(lock), lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
