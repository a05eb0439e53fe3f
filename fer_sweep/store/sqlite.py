"""SQLite: one file on a local disk, for all agents of one host.

Python's sqlite3 is used without SQLAlchemy, whose import alone takes longer than `fersweep status` should.
"""

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fer_sweep.errors import InputError, StorageError
from fer_sweep.mounts import network_file_system
from fer_sweep.store import engine
from fer_sweep.store.engine import Connection, Dialect, NothingCreated

PREFIX = "sqlite:///"
COPIES = 20
"""Attempts to copy a file that cannot be read in place, until none has changed it meanwhile."""
_Version = tuple[tuple[int, int], ...]

_HINTS = {
    sqlite3.SQLITE_NOTADB: "the file is something else or damaged: move it away, or set FERSWEEP_HOME",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: `sqlite3 FILE .recover` may save it; network disks often do this",
    sqlite3.SQLITE_CANTOPEN: "make the folder writable, or set FERSWEEP_HOME to another folder",
    sqlite3.SQLITE_BUSY: "another process holds the database: end it, let it continue if it is paused, or try again",
    sqlite3.SQLITE_FULL: "the disk is full: make room, then run the same command again",
    # Also of a full disk, where the shared-memory file cannot grow.
    sqlite3.SQLITE_IOERR: "make room if the disk is full, or check it; then run the same command again",
}


def check_place(path: Path) -> None:
    """Check that a database may be written here.

    Raises:
        InputError: It is on a network file system, where SQLite's locks do not hold between hosts and its shared memory
            is not shared: trials would run twice, and the file would be damaged.
    """
    if kind := network_file_system(path):
        raise InputError(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold",
            hint="keep the search in PostgreSQL: storage postgresql+psycopg://USER@HOST/DATABASE, or the same in "
            "FERSWEEP_STORAGE; or set FERSWEEP_HOME to a folder on a local disk",
        )


class SqliteFile:
    """An open file; see ``database.Database``."""

    dialect = Dialect(
        real="REAL",
        counted_key="INTEGER PRIMARY KEY AUTOINCREMENT",
        find_table="SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?",
    )

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open a file, or create it.

        Raises:
            NothingCreated: The file does not exist, and ``create`` is false.
            InputError: A database may not be written there.
            StorageError: The file cannot be used.
        """
        self._path = path
        self.name = str(path)
        self._may_write = create
        self._copied: _Version | None = None
        """Of the file, where only a copy of it can be read."""
        if not create and not path.is_file():
            raise NothingCreated(self.name)
        with self._explained():
            if create:
                check_place(path)
                path.parent.mkdir(parents=True, exist_ok=True)
            self._raw = sqlite3.connect(
                path, timeout=engine.LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._raw.row_factory = sqlite3.Row
            try:
                self._file = _identity(path)
                if not create and not self._is_readable():
                    self._read_copy()
                # FULL: a trial recorded as finished is still finished after the power fails. Costs one fsync a commit.
                self._raw.execute("PRAGMA synchronous=FULL")
                if create:
                    self._switch_to_wal()
            except BaseException:
                self._raw.close()
                raise

    def clock(self) -> float:
        """The host's: Unix time, seconds."""
        return time.time()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """See ``Database.transaction``."""
        with self._explained():
            if _identity(self._path) != self._file:
                # SQLite would keep writing to the removed file, and all of it would be lost.
                raise StorageError(
                    f"{self._path} has been removed or replaced while in use",
                    hint="put it back and start again; the trials' folders still have their results",
                )
            if self._copied:
                if write:
                    raise self._read_only()
                if _version(self._path) != self._copied:  # an agent elsewhere has written to it
                    self._read_copy()
            if write and not self._may_write:  # a file on a network disk can still be read
                check_place(self._path)
                self._may_write = True
            self._raw.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield Connection(self._raw.execute)
                self._raw.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, such as a full disk.
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")
                raise

    def _is_readable(self) -> bool:
        """Whether SQLite can read the file where it is: not in a read-only folder that no agent writes to from outside.

        There it cannot create the shared memory that readers of a WAL database need; where an agent runs, there is one.
        """
        try:
            self._raw.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            return False
        return True

    def _read_copy(self) -> None:
        """Read a copy in memory: SQLite's immutable mode would skip the log, and see half of a checkpoint."""
        with tempfile.TemporaryDirectory(prefix="fersweep-read-") as folder:
            copy = Path(folder) / "copy.db"
            for _ in range(COPIES):
                before = _version(self._path)
                for source, target in zip(_files(self._path), _files(copy), strict=True):
                    target.unlink(missing_ok=True)
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copyfile(source, target)
                if _version(self._path) == before:
                    break
            else:
                raise StorageError(f"{self._path} changes while it is read", hint="run the same command again")
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            with contextlib.closing(sqlite3.connect(copy)) as recovered:
                recovered.backup(memory)
        self._raw.close()
        self._raw, self._copied = memory, before
        self._raw.row_factory = sqlite3.Row

    def _switch_to_wal(self) -> None:
        # SQLite does not wait for this lock as it does elsewhere, and several processes may create one file at once.
        deadline = time.monotonic() + engine.LOCK_TIMEOUT_S
        while True:
            try:
                if self._raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    self._raw.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            is_closed = _code(error) == sqlite3.SQLITE_CANTOPEN and not os.access(self._path.parent, os.W_OK)
            if is_closed or _code(error) == sqlite3.SQLITE_READONLY:
                raise self._read_only() from error
            hint = _HINTS.get(_code(error), "run the same command again; nothing recorded so far is lost")
            raise StorageError(f"{self._path}: {error}", hint=hint) from error
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise self._read_only() from error
            hint = "make the folder writable, or set FERSWEEP_HOME to another folder"
            raise StorageError(f"{self._path}: {error.strerror or error}", hint=hint) from error

    def _read_only(self) -> StorageError:
        where = next((path for path in (self._path, *self._path.parents) if path.exists()), self._path)
        hint = "make it writable, or set FERSWEEP_HOME to a folder that is"
        return StorageError(f"{where} is read-only: nothing can be written to this home", hint=hint)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _files(path: Path) -> tuple[Path, Path]:
    """A database and its log."""
    return path, path.with_name(f"{path.name}-wal")


def _version(path: Path) -> _Version:
    """Changes with every commit and every checkpoint."""
    found = []
    for file in _files(path):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            found.append((status.st_size, status.st_mtime_ns))
    return tuple(found)


def _code(error: sqlite3.Error) -> int:
    """The primary error code; the higher bits refine it."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
