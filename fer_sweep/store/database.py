"""The database of all sweeps and trials, in SQLite or PostgreSQL: opened by its URL, used in transactions."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy import RowMapping as Row
from sqlalchemy.exc import DBAPIError

from fer_sweep import files
from fer_sweep.errors import InputError, StorageError
from fer_sweep.store import schema, sqlite
from fer_sweep.store.engine import (
    LOCK_TIMEOUT_S,
    Backend,
    ConnectionLost,
    Interrupted,
    NothingCreated,
    roll_back,
    words,
)
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
    """An open database over one connection; safe to share among threads. One writer at a time, readers never wait."""

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
            create: Create the tables, and for SQLite the file, where they are missing.
            lock_timeout_s: How long a transaction waits for another one, or for a server to come back.
            end_waiting: Asked between attempts to reach a server; where it is true, ``Interrupted`` is raised.

        Raises:
            InputError: The URL has another form, psycopg is not installed, or SQLite would be on a network file system.
            NothingCreated: No sweep has been created there, and ``create`` is false.
            StorageError: The database cannot be used.
        """
        self._lock = threading.RLock()
        self._backend = _backend(storage, create=create, lock_timeout_s=lock_timeout_s, end_waiting=end_waiting)
        self.name = self._backend.name
        """The database as shown to people: the file's path, or the URL without its password."""
        try:
            self._check_schema(create=create)
        except BaseException:
            self._backend.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._backend.close()

    def clock(self) -> float:
        """Unix time in seconds, by a clock that all agents on this database share."""
        return self._backend.clock()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """Commit at the end of the block; roll back if it raises.

        A writing transaction shuts out other writers from its start, so what it reads stays true until it ends.

        Raises:
            ConnectionLost: The connection to the server broke; see ``through_restarts``.
            StorageError: The database cannot be read or written; nothing has changed.
        """
        with self._lock:
            try:
                connection = self._backend.begin(write=write)
            except DBAPIError as error:
                raise self._explain(error) from error
            is_committing = False
            try:
                yield connection
                if write:
                    is_committing = True
                    connection.commit()
                else:
                    roll_back(connection)
            except DBAPIError as error:
                roll_back(connection)
                if not error.connection_invalidated:
                    raise self._explain(error) from error
                if is_committing:
                    raise ConnectionLost(
                        f"{self.name}: the connection broke during a commit: {words(error)}",
                        hint="check with `fersweep status` whether the change was made before you repeat it",
                    ) from error
                raise ConnectionLost(
                    f"{self.name}: the connection broke, and nothing has changed: {words(error)}",
                    hint="once the server is back, run the same command again",
                ) from error
            except BaseException:
                roll_back(connection)
                raise
            finally:
                connection.close()

    def _explain(self, error: DBAPIError) -> StorageError:
        return StorageError(f"{self.name}: {words(error)}", hint=self._backend.advice(error))

    def _check_schema(self, *, create: bool) -> None:
        with self.transaction(write=False) as connection:
            found = schema.read_version(connection)
        if found == SCHEMA_VERSION:
            return
        if found is not None:
            schema.check_version(self.name, found)
        elif not create:
            raise NothingCreated(self.name)
        with self.transaction(write=True) as connection:
            schema.make_current(connection, self.name)  # reads the version again: another process may have been first


def default_storage() -> str:
    """The database of this home: `sweeps.db` under ``FERSWEEP_HOME``."""
    return f"{sqlite.PREFIX}{files.home() / 'sweeps.db'}"


def check_storage(storage: str) -> None:
    """Check whether a database could be created, without touching it.

    Raises:
        InputError: The URL has another form, psycopg is not installed, or SQLite would be on a network file system.
    """
    recorded(storage)
    if storage.startswith(sqlite.PREFIX):
        sqlite.check_place(database_path(storage))


def recorded(storage: str) -> str:
    """A storage URL as it may be shown and written down: valid in every folder, and without a password.

    This process keeps the password in memory.

    Raises:
        InputError: The URL has another form, or psycopg is not installed.
    """
    if storage.startswith(sqlite.PREFIX):
        return f"{sqlite.PREFIX}{database_path(storage)}"
    if storage.startswith(_POSTGRES):
        with _needs_psycopg():
            from fer_sweep.store import postgres_urls  # only here: psycopg is an optional dependency
        return postgres_urls.without_secrets(storage)
    kind, separator, _ = storage.partition("://")
    raise InputError(
        # Without the rest of the URL, which may contain a password.
        f"--storage {kind + '://...' if separator else '...'}: not a database that fersweep supports",
        hint="give sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE, or leave --storage out",
    )


def through_restarts(step: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Repeat a step in which the connection broke, so that a server can be restarted without ending an agent.

    The next transaction waits for the server to come back, LOCK_TIMEOUT_S at most. A step writes in one transaction.
    Usually nothing of it was written; but if the connection broke during the commit, it may have been. So a step must
    be safe to repeat:

    - reading, renewing or releasing leases, setting a sweep's state and recording the end of a trial are idempotent;
    - an epoch reported twice is recorded once, and the stopping rule judges the next one;
    - a trial handed out twice: ``Leases`` recognises the one whose commit was uncertain, and hands it out again as
      the next attempt. If the agent ends first, nobody renews its lease, and another agent reclaims it.
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


def _backend(storage: str, *, create: bool, lock_timeout_s: float, end_waiting: Callable[[], bool]) -> Backend:
    if storage.startswith(_POSTGRES):
        with _needs_psycopg():
            from fer_sweep.store import postgres  # only here: psycopg is an optional dependency
        return postgres.PostgresServer(storage, lock_timeout_s=lock_timeout_s, end_waiting=end_waiting)
    recorded(storage)
    return sqlite.SqliteFile(storage, create=create, lock_timeout_s=lock_timeout_s)


@contextlib.contextmanager
def _needs_psycopg() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"--storage {_POSTGRES}...: psycopg is not installed: {error}", hint="pip install 'fersweep[postgres]'"
        ) from error
