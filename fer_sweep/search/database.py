"""The SQLite file that holds every sweep and trial: opening it, transactions, and errors a person can act on.

Python's own sqlite3 is used, not SQLAlchemy, whose import alone takes longer than `fersweep status` should. The
SQL is plain enough for PostgreSQL; what is SQLite's own (pragmas, the way a transaction begins) is all here.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fer_sweep import files
from fer_sweep.errors import InputError, StorageError

SCHEMA_VERSION = 1
"""Rises with every change of the tables that an older fersweep could not live with."""

LOCK_TIMEOUT_S = 60.0
"""How long to wait for another process's transaction; each takes milliseconds, so this is ample."""

_PREFIX = "sqlite:///"

_TABLES = (
    "CREATE TABLE IF NOT EXISTS fersweep_schema (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS fersweep_sweeps (
        id TEXT PRIMARY KEY,
        position INTEGER NOT NULL,
        spec TEXT NOT NULL,
        state TEXT NOT NULL,
        max_gap REAL,
        seed INTEGER NOT NULL,
        created REAL NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS fersweep_trials (
        sweep_id TEXT NOT NULL REFERENCES fersweep_sweeps (id),
        number INTEGER NOT NULL,
        identity TEXT NOT NULL,
        config TEXT NOT NULL,
        parameters TEXT NOT NULL,
        memo TEXT,
        state TEXT NOT NULL,
        slot TEXT NOT NULL,
        owner TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        lease_until REAL NOT NULL,
        started REAL NOT NULL,
        ended REAL,
        metrics TEXT NOT NULL,
        objectives TEXT,
        result TEXT,
        reason TEXT,
        PRIMARY KEY (sweep_id, number),
        UNIQUE (sweep_id, identity)
    )""",
    # An id is never used again, so a reader can ask for what is new since the last one it saw.
    """CREATE TABLE IF NOT EXISTS fersweep_reports (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        sweep_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        metrics TEXT NOT NULL,
        UNIQUE (sweep_id, number, epoch)
    )""",
    "CREATE INDEX IF NOT EXISTS fersweep_reports_news ON fersweep_reports (sweep_id, id)",
)


class Connection:
    """One open transaction."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self._raw.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        found: sqlite3.Row | None = self._raw.execute(sql, values).fetchone()
        return found

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement that writes; returns the number of rows it touched."""
        return self._raw.execute(sql, values).rowcount


class Database:
    """A storage URL, opened; safe to share among threads. One writer at a time, readers never wait."""

    def __init__(self, storage: str, *, create: bool = False, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Open a database.

        Args:
            storage: `sqlite:///PATH`.
            create: Make the file and its tables where they are missing.
            lock_timeout_s: How long a transaction waits for another one's end.

        Raises:
            InputError: The URL is not for SQLite, or there is no such file and it is not to be made.
            StorageError: The file cannot be used.
        """
        self.path = database_path(storage)
        self._lock = threading.RLock()
        if not create and not self.path.is_file():
            raise InputError(f"no sweep has been created in {self.path}", hint="create one: fersweep create FILE")
        with self._explained():
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._raw = sqlite3.connect(
                self.path, timeout=lock_timeout_s, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                self._raw.row_factory = sqlite3.Row
                # FULL: a trial recorded as finished is still finished after the power fails. Costs one fsync a commit.
                self._raw.execute("PRAGMA synchronous=FULL")
                self._file = _identity(self.path)
                if create:
                    self._make_tables()
            self._check_version()
        except BaseException:
            self._raw.close()
            raise

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._raw.close()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """All or nothing: committed when the block ends well, undone otherwise.

        A writing transaction shuts out other writers from its start, so what it reads stays true until it ends.

        Raises:
            StorageError: The database cannot be read or written; nothing has changed.
        """
        with self._lock, self._explained():
            if _identity(self.path) != self._file:
                # SQLite would go on writing to the removed file, and all of it would be lost.
                raise StorageError(
                    f"{self.path} has been removed or replaced while in use",
                    hint="put it back and start again; the trials' own folders still hold what they did",
                )
            self._raw.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield Connection(self._raw)
                self._raw.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk for one.
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")
                raise

    def _make_tables(self) -> None:
        self._switch_to_wal()
        with self.transaction(write=True) as connection:
            for statement in _TABLES:
                connection.change(statement)
            if connection.row("SELECT version FROM fersweep_schema") is None:
                connection.change("INSERT INTO fersweep_schema (version) VALUES (?)", [SCHEMA_VERSION])

    def _switch_to_wal(self) -> None:
        # SQLite does not wait for the lock here as it does elsewhere, and several processes may make one file at once.
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                if self._raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    self._raw.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _check_version(self) -> None:
        with self.transaction(write=False) as connection:
            tables = connection.rows("SELECT name FROM sqlite_master WHERE name = 'fersweep_schema'")
            found = connection.row("SELECT version FROM fersweep_schema") if tables else None
        if found is None:
            raise StorageError(
                f"{self.path} is a database, but not one of fersweep's",
                hint="give the --storage with which the sweep was created",
            )
        if found["version"] > SCHEMA_VERSION:
            raise StorageError(
                f"{self.path} was written by a newer fersweep (schema {found['version']}, this one knows "
                f"{SCHEMA_VERSION})",
                hint="upgrade fersweep here, or set FERSWEEP_HOME to another folder",
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: {error}", hint=_advice(error)) from error
        except OSError as error:
            raise StorageError(
                f"{self.path}: {error.strerror or error}", hint="make the folder writable, or set FERSWEEP_HOME"
            ) from error


def default_storage() -> str:
    """The database of this home: `sweeps.db` under ``FERSWEEP_HOME``."""
    return f"{_PREFIX}{files.home() / 'sweeps.db'}"


def database_path(storage: str) -> Path:
    """The file of a storage URL.

    Raises:
        InputError: The URL is not `sqlite:///PATH`.
    """
    if not storage.startswith(_PREFIX) or storage == _PREFIX:
        kind = storage.partition(":")[0]
        raise InputError(
            f"--storage {kind}:...: only SQLite is supported so far",  # the rest of the URL may hold a password
            hint="give sqlite:///PATH, or leave --storage out",
        )
    return Path(storage.removeprefix(_PREFIX)).absolute()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _advice(error: sqlite3.Error) -> str:
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF  # the primary code; the higher bits refine it
    return {
        sqlite3.SQLITE_NOTADB: "the file is something else or damaged: move it away, or set FERSWEEP_HOME",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: `sqlite3 FILE .recover` may save it; network disks often do this",
        sqlite3.SQLITE_READONLY: "make the file and its folder writable, or set FERSWEEP_HOME to another folder",
        sqlite3.SQLITE_CANTOPEN: "make the folder writable, or set FERSWEEP_HOME to another folder",
        sqlite3.SQLITE_BUSY: "another process holds the database: end it, or try again; never put it on a network disk",
        sqlite3.SQLITE_FULL: "the disk is full: make room, then run the same command again",
    }.get(code, "check the disk, then run the same command again; nothing recorded so far is lost")
