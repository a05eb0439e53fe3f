"""SQLite: one file on a local disk, for all agents of one host. All that is SQLite's own is here.

Python's own sqlite3 is used, not SQLAlchemy, whose import alone takes longer than `fersweep status` should.
"""

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fer_sweep.errors import InputError, StorageError
from fer_sweep.host_processes import is_paused
from fer_sweep.mounts import network_file_system
from fer_sweep.store.engine import Dialect, NothingCreated

PREFIX = "sqlite:///"

_WRITE_LOCK = 120
"""The byte of the -shm file that a writer locks; see "WAL-mode File Format" in SQLite's documentation."""
_LEAST_FREE = 1 << 20
"""Bytes. With less room, a write that failed for no reason given failed for that one."""

_DIALECT = Dialect(
    real="REAL",
    counted_key="INTEGER PRIMARY KEY AUTOINCREMENT",
    find_table="SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?",
)


def database_path(storage: str) -> Path:
    """The file of a storage URL.

    Raises:
        InputError: The URL is not `sqlite:///PATH`.
    """
    if not storage.startswith(PREFIX) or storage == PREFIX:
        raise InputError("the storage is no SQLite file", hint="give sqlite:///PATH, or leave --storage out")
    return Path(storage.removeprefix(PREFIX)).absolute()


def check_place(path: Path) -> None:
    """See that a database may be written here.

    Raises:
        InputError: On a network file system it may not: SQLite's locks do not hold there between hosts, and its shared
            memory is not shared, so that trials would be doubled and the file damaged.
    """
    if kind := network_file_system(path):
        raise InputError(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold",
            hint="keep the search in PostgreSQL, by --storage postgresql+psycopg://USER@HOST/DATABASE or the same in "
            "FERSWEEP_STORAGE; or set FERSWEEP_HOME to a folder on a local disk",
        )


class _Connection:
    """See ``engine.Connection``."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        return self._raw.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._raw.execute(sql, values).fetchone()
        return found

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self._raw.execute(sql, values).rowcount


class SqliteFile:
    """An open file; see ``engine.Engine``."""

    dialect = _DIALECT

    def __init__(self, storage: str, *, create: bool, lock_timeout_s: float) -> None:
        """Open a file.

        Args:
            storage: `sqlite:///PATH`.
            create: Make it where it is missing.
            lock_timeout_s: How long a transaction waits for another one's end.

        Raises:
            NothingCreated: There is no such file and it is not to be made.
            InputError: The file may not be made where it would lie.
            StorageError: The file cannot be used.
        """
        self._path = database_path(storage)
        self.name = str(self._path)
        self._may_write = False
        if not create and not self._path.is_file():
            raise NothingCreated(self.name)
        with self._explained():
            if create:
                self._check_place()
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._raw = sqlite3.connect(
                self._path, timeout=lock_timeout_s, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                self._raw.row_factory = sqlite3.Row
                # FULL: a trial recorded as finished is still finished after the power fails. Costs one fsync a commit.
                self._raw.execute("PRAGMA synchronous=FULL")
                self._file = _identity(self._path)
                if create:
                    self._switch_to_wal(lock_timeout_s)
        except BaseException:
            self._raw.close()
            raise

    def clock(self) -> float:
        """The host's own: there is no other."""
        return time.time()

    def close(self) -> None:
        """Let the file go."""
        self._raw.close()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[_Connection]:
        """See ``engine.Engine``; a writing transaction shuts out other writers from its start."""
        with self._explained():
            if _identity(self._path) != self._file:
                # SQLite would go on writing to the removed file, and all of it would be lost.
                raise StorageError(
                    f"{self._path} has been removed or replaced while in use",
                    hint="put it back and start again; the trials' own folders still hold what they did",
                )
            if write:
                self._check_place()
            self._raw.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield _Connection(self._raw)
                self._raw.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk for one.
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")
                raise

    def _check_place(self) -> None:
        # Not on opening: what is in a file on a network disk can still be read out.
        if not self._may_write:
            check_place(self._path)
            self._may_write = True

    def _switch_to_wal(self, lock_timeout_s: float) -> None:
        # SQLite does not wait for the lock here as it does elsewhere, and several processes may make one file at once.
        deadline = time.monotonic() + lock_timeout_s
        while True:
            try:
                if self._raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    self._raw.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}", hint=_advice(error, self._path)) from error
        except OSError as error:
            raise StorageError(
                f"{self._path}: {error.strerror or error}", hint="make the folder writable, or set FERSWEEP_HOME"
            ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _writer(path: Path) -> int | None:
    """The process that is in the middle of a writing transaction; None where the system does not tell."""
    try:
        file = path.with_name(f"{path.name}-shm").stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            # Such as "3: POSIX  ADVISORY  WRITE 644 08:01:5678 120 120"; one that waits has "->" for its kind.
            _, *kind, process, inode, first, last = line.split()
            covers = int(first) <= _WRITE_LOCK and (last == "EOF" or int(last) >= _WRITE_LOCK)
            if kind == ["POSIX", "ADVISORY", "WRITE"] and inode.rpartition(":")[2] == str(file) and covers:
                return int(process)
    except (OSError, ValueError):
        pass
    return None


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _LEAST_FREE
    except OSError:
        return False


def _advice(error: sqlite3.Error, path: Path) -> str:
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF  # the primary code; the higher bits refine it
    if code == sqlite3.SQLITE_BUSY and (writer := _writer(path)) is not None:
        if is_paused(writer):
            return f"process {writer} holds the database and is paused: let it go on (kill -CONT {writer}), or end it"
        return f"process {writer} holds the database: end it, or try again"
    if code == sqlite3.SQLITE_IOERR and _is_full(path):
        code = sqlite3.SQLITE_FULL  # its shared memory is a file too, and where that cannot grow SQLite says no more
    return {
        sqlite3.SQLITE_NOTADB: "the file is something else or damaged: move it away, or set FERSWEEP_HOME",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: `sqlite3 FILE .recover` may save it; network disks often do this",
        sqlite3.SQLITE_READONLY: "make the file and its folder writable, or set FERSWEEP_HOME to another folder",
        sqlite3.SQLITE_CANTOPEN: "make the folder writable, or set FERSWEEP_HOME to another folder",
        sqlite3.SQLITE_BUSY: "another process holds the database: end it, or try again; never put it on a network disk",
        sqlite3.SQLITE_FULL: "the disk is full: make room, then run the same command again",
    }.get(code, "check the disk, then run the same command again; nothing recorded so far is lost")
