"""SQLite: one file on a local disk, for all agents of one host."""

import shutil
import sqlite3
import time
from pathlib import Path

from sqlalchemy import Connection, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError

from fer_sweep.errors import InputError, StorageError
from fer_sweep.host_processes import is_paused
from fer_sweep.mounts import network_file_system
from fer_sweep.store.engine import NothingCreated, roll_back

PREFIX = "sqlite:///"

_WRITE_LOCK = 120
"""The byte of the -shm file that a writer locks; see "WAL-mode File Format" in SQLite's documentation."""
_LEAST_FREE = 1 << 20
"""Bytes. An input/output error with less free space than this is taken for a full disk."""


def database_path(storage: str) -> Path:
    """The file of a storage URL.

    Raises:
        InputError: The URL is not `sqlite:///PATH`.
    """
    if not storage.startswith(PREFIX) or storage == PREFIX:
        raise InputError("the storage is not a SQLite file", hint="give sqlite:///PATH, or leave --storage out")
    return Path(storage.removeprefix(PREFIX)).absolute()


def check_place(path: Path) -> None:
    """Check that a database may be written here.

    Raises:
        InputError: The file would be on a network file system, where SQLite's locks do not hold between hosts: trials
            would run twice and the file would be damaged.
    """
    if kind := network_file_system(path):
        raise InputError(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not hold",
            hint="keep the search in PostgreSQL, by --storage postgresql+psycopg://USER@HOST/DATABASE or the same in "
            "FERSWEEP_STORAGE; or set FERSWEEP_HOME to a folder on a local disk",
        )


class SqliteFile:
    """An open file; see ``engine.Backend``."""

    def __init__(self, storage: str, *, create: bool, lock_timeout_s: float) -> None:
        """Open a file.

        Args:
            storage: `sqlite:///PATH`.
            create: Create the file if it does not exist.
            lock_timeout_s: How long a transaction waits for another one.

        Raises:
            NothingCreated: The file does not exist and is not to be created.
            InputError: The file must not be created in this place.
            StorageError: The folder cannot be created.
        """
        self._path = database_path(storage)
        self._create, self._lock_timeout_s = create, lock_timeout_s
        self._may_write = False
        self.name = str(self._path)
        if not create and not self._path.is_file():
            raise NothingCreated(self.name)
        if create:
            self._check_place()
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f"{self._path}: {error.strerror}", hint="make the folder writable, or set FERSWEEP_HOME"
                ) from error
        self._engine = create_engine(
            "sqlite://", creator=self._connect, poolclass=QueuePool, pool_size=1, max_overflow=0
        )
        self._file: tuple[int, int] | None = None
        """Device and inode of the open file."""

    def clock(self) -> float:
        """The host's clock."""
        return time.time()

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def begin(self, *, write: bool) -> Connection:
        """See ``Backend.begin``."""
        if self._file is not None and _identity(self._path) != self._file:
            # SQLite would keep writing to the removed file, and all of it would be lost.
            raise StorageError(
                f"{self._path} has been removed or replaced while in use",
                hint="put it back and start again; the trials' own folders still hold what they did",
            )
        if write:
            self._check_place()
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
        except BaseException:
            roll_back(connection)
            connection.close()
            raise
        return connection

    def advice(self, error: DBAPIError) -> str:
        """See ``Backend.advice``."""
        code = (getattr(error.orig, "sqlite_errorcode", 0) or 0) & 0xFF  # the primary code; higher bits refine it
        if code == sqlite3.SQLITE_BUSY and (writer := _writer(self._path)) is not None:
            if is_paused(writer):
                return f"process {writer} holds the database and is paused: continue it (kill -CONT {writer}) or end it"
            return f"process {writer} holds the database: end it, or try again"
        if code == sqlite3.SQLITE_IOERR and _is_full(self._path):
            code = sqlite3.SQLITE_FULL  # its shared memory is a file too, and SQLite does not say why it cannot grow
        return {
            sqlite3.SQLITE_NOTADB: "the file is something else or damaged: move it away, or set FERSWEEP_HOME",
            sqlite3.SQLITE_CORRUPT: "the file is damaged: `sqlite3 FILE .recover` may save it; network disks often "
            "do this",
            sqlite3.SQLITE_READONLY: "make the file and its folder writable, or set FERSWEEP_HOME to another folder",
            sqlite3.SQLITE_CANTOPEN: "make the folder writable, or set FERSWEEP_HOME to another folder",
            sqlite3.SQLITE_BUSY: "another process holds the database: end it, or try again; never put it on a "
            "network disk",
            sqlite3.SQLITE_FULL: "the disk is full: make room, then run the same command again",
        }.get(code, "check the disk, then run the same command again; nothing recorded so far is lost")

    def _check_place(self) -> None:
        # Not on opening: a database on a network disk can still be read.
        if not self._may_write:
            check_place(self._path)
            self._may_write = True

    def _connect(self) -> sqlite3.Connection:
        # The isolation level None leaves BEGIN to this module.
        raw = sqlite3.connect(self._path, timeout=self._lock_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            # FULL: a trial recorded as finished is still finished after a power failure. Costs one fsync per commit.
            raw.execute("PRAGMA synchronous=FULL")
            self._file = _identity(self._path)
            if self._create:
                self._switch_to_wal(raw)
        except BaseException:
            raw.close()
            raise
        return raw

    def _switch_to_wal(self, raw: sqlite3.Connection) -> None:
        # SQLite does not wait for this lock by itself, and several processes may create one file at once.
        deadline = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    raw.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _writer(path: Path) -> int | None:
    """The process that holds the write lock; None where the system does not tell."""
    try:
        file = path.with_name(f"{path.name}-shm").stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            # Such as "3: POSIX  ADVISORY  WRITE 644 08:01:5678 120 120"; a waiting one has "->" before its kind.
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
