"""The database that holds every sweep and trial, in SQLite or PostgreSQL: opening it by its URL, and transactions."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from fer_sweep import files
from fer_sweep.errors import InputError
from fer_sweep.store import schema as tables
from fer_sweep.store import sqlite
from fer_sweep.store.engine import LOCK_TIMEOUT_S, Connection, ConnectionLost, Engine, Interrupted, NothingCreated, Row
from fer_sweep.store.schema import SCHEMA_VERSION
from fer_sweep.store.sqlite import database_path

__all__ = [
    "LOCK_TIMEOUT_S",
    "SCHEMA_VERSION",
    "Connection",
    "Database",
    "NothingCreated",
    "Row",
    "check_storage",
    "database_path",
    "default_storage",
    "recorded",
    "through_restarts",
]

_POSTGRES = "postgresql+psycopg:"
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Database:
    """A storage URL, opened; safe to share among threads. One writer at a time, readers never wait."""

    def __init__(
        self,
        storage: str,
        *,
        create: bool = False,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        end_waiting: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open a database.

        Args:
            storage: `sqlite:///PATH` or `postgresql+psycopg://USER@HOST/DATABASE`.
            create: Make the tables, and for SQLite the file, where they are missing.
            lock_timeout_s: How long a transaction waits for another one's end, or for a server to come back.
            end_waiting: Asked while a server is waited for; where it is true, ``Interrupted`` is raised.

        Raises:
            InputError: The URL is for neither, or psycopg is missing, or SQLite would lie on a network file system.
            NothingCreated: No sweep has been created there, and nothing is to be made.
            StorageError: The database cannot be used.
        """
        self._lock = threading.RLock()
        self._engine = _open(storage, create=create, lock_timeout_s=lock_timeout_s, end_waiting=end_waiting)
        self.name = self._engine.name
        """What people know it by: the file's path, or the URL without its password."""
        try:
            self._bring_up(create=create)
        except BaseException:
            self._engine.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._engine.close()

    def clock(self) -> float:
        """Unix time in seconds, by a clock that all agents on this database go by."""
        return self._engine.clock()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """All or nothing: committed when the block ends well, undone otherwise.

        A writing transaction shuts out other writers from its start, so what it reads stays true until it ends.

        Raises:
            ConnectionLost: The connection to the server broke; see ``through_restarts``.
            StorageError: The database cannot be read or written; nothing has changed.
        """
        with self._lock, self._engine.transaction(write=write) as connection:
            yield connection

    def _bring_up(self, *, create: bool) -> None:
        with self.transaction(write=False) as connection:
            found = tables.schema_version(connection, self._engine.dialect)
        if found == SCHEMA_VERSION:
            return
        if found is not None:
            tables.way_up(self.name, found)
        elif not create:
            raise NothingCreated(self.name)
        with self.transaction(write=True) as connection:
            found = tables.schema_version(connection, self._engine.dialect)  # another process may have been first
            if found is None:
                tables.make_tables(connection, self._engine.dialect)
            elif found != SCHEMA_VERSION:
                tables.upgrade(connection, self._engine.dialect, tables.way_up(self.name, found))


def default_storage() -> str:
    """The database of this home: `sweeps.db` under ``FERSWEEP_HOME``."""
    return f"{sqlite.PREFIX}{files.home() / 'sweeps.db'}"


def check_storage(storage: str) -> None:
    """See that a storage could be created, as far as that shows without touching it.

    Raises:
        InputError: The URL is for neither engine, or psycopg is missing, or SQLite would lie on a network file system.
    """
    recorded(storage)
    if storage.startswith(sqlite.PREFIX):
        sqlite.check_place(database_path(storage))


def recorded(storage: str) -> str:
    """A storage URL as it may be shown and written down: good in every folder, and without a password.

    The password goes on being used by this process.

    Raises:
        InputError: The URL is for neither engine, or psycopg is missing.
    """
    if storage.startswith(sqlite.PREFIX):
        return f"{sqlite.PREFIX}{database_path(storage)}"
    if storage.startswith(_POSTGRES):
        with _wants_psycopg():
            from fer_sweep.store import postgres_urls  # only here: psycopg is an optional part
        return postgres_urls.without_secrets(storage)
    kind, separator, _ = storage.partition("://")
    raise InputError(
        # Without the rest of the URL, which may hold a password.
        f"--storage {kind + '://...' if separator else '...'}: not a database that fersweep knows",
        hint="give sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE, or leave --storage out",
    )


def through_restarts(step: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Do a step again if the connection broke in it, so that a server may be restarted without ending an agent.

    The next transaction waits for the server to come back, LOCK_TIMEOUT_S at most. A step writes in one transaction.
    Mostly nothing of it has been written by then; but if the connection broke while the server was writing it, it may
    have been. So a step must do no harm when it is done twice:

    - reading, renewing or giving up leases, moving a sweep to a state, and saying how a trial ended come to the same;
    - an epoch recorded twice is recorded once, and is not judged by the rule that stops trials: the next one is;
    - a trial handed out twice: ``Leases`` knows again the one whose handing out it never heard the end of, and hands
      it out anew as the next attempt. If the agent ends first, nobody renews its lease, and it is taken over.
    """

    @functools.wraps(step)
    def again(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                return step(*args, **kwargs)
            except Interrupted:
                raise
            except ConnectionLost:
                if time.monotonic() >= deadline:
                    raise

    return again


def _open(storage: str, *, create: bool, lock_timeout_s: float, end_waiting: Callable[[], bool]) -> Engine:
    if storage.startswith(_POSTGRES):
        with _wants_psycopg():
            from fer_sweep.store import postgres  # only here: psycopg is an optional part
        return postgres.PostgresServer(storage, lock_timeout_s=lock_timeout_s, end_waiting=end_waiting)
    recorded(storage)
    return sqlite.SqliteFile(storage, create=create, lock_timeout_s=lock_timeout_s)


@contextlib.contextmanager
def _wants_psycopg() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"--storage {_POSTGRES}...: psycopg is not installed: {error}", hint="pip install 'fersweep[postgres]'"
        ) from error
