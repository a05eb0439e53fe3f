"""The database with every sweep and trial, in SQLite or PostgreSQL: opening it by its URL, and transactions."""

import contextlib
import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fer_sweep import files
from fer_sweep.errors import InputError, StorageError
from fer_sweep.store import sqlite
from fer_sweep.store.engine import LOCK_TIMEOUT_S, Connection, ConnectionLost, Interrupted, NothingCreated
from fer_sweep.store.schema import SCHEMA_VERSION, make_tables, schema_version, upgrade_tables

if TYPE_CHECKING:
    from fer_sweep.store.postgres import PostgresServer

_POSTGRES = "postgresql+psycopg:"
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Database:
    """A storage URL, opened; safe to share among threads. One writer at a time, readers never wait."""

    def __init__(self, storage: str, *, create: bool = False, end_waiting: Callable[[], bool] = lambda: False) -> None:
        """Open a database.

        Args:
            storage: `sqlite:///PATH` or `postgresql+psycopg://USER@HOST/DATABASE`.
            create: Create the tables, and for SQLite the file, where they are missing.
            end_waiting: Asked while a server is waited for; where it is true, ``Interrupted`` is raised.

        Raises:
            InputError: The URL is for neither engine, psycopg is missing, or SQLite would be on a network file system.
            NothingCreated: No sweep has been created there, and ``create`` is false.
            StorageError: The database cannot be used.
        """
        self._lock = threading.RLock()
        self._version = SCHEMA_VERSION
        self._engine = _engine(storage, create=create, end_waiting=end_waiting)
        self.name = self._engine.name
        """For messages: the file's path, or the URL without its password."""
        try:
            self._check_tables(create=create)
        except BaseException:
            self._engine.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._engine.close()

    def clock(self) -> float:
        """Unix time in seconds, by a clock that all agents on this database share."""
        return self._engine.clock()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """Commit when the block ends well, otherwise roll back.

        A writing transaction excludes other writers from its start, so what it reads stays true until it ends. The
        first one in a database of an earlier version upgrades its tables. A reading one sees one moment, and never
        waits.

        Raises:
            ConnectionLost: The connection to the server broke; see ``through_restarts``.
            StorageError: The database cannot be read or written; nothing has changed.
        """
        with self._lock, self._engine.transaction(write=write) as connection:
            upgrades = write and self._version < SCHEMA_VERSION
            if upgrades and (found := schema_version(connection, self._engine.dialect) or 0) < SCHEMA_VERSION:
                upgrade_tables(connection, self._engine.dialect, found)
            connection.version = SCHEMA_VERSION if upgrades else self._version
            connection.place = self.name
            yield connection
        if upgrades:
            self._version = SCHEMA_VERSION

    def _check_tables(self, *, create: bool) -> None:
        dialect = self._engine.dialect
        with self.transaction(write=False) as connection:
            found = schema_version(connection, dialect)
        if found is None and not create:
            raise NothingCreated(self.name)
        if found is None:
            with self.transaction(write=True) as connection:
                if schema_version(connection, dialect) is None:  # another process may have been first
                    make_tables(connection, dialect)
        elif found > SCHEMA_VERSION:
            raise StorageError(
                f"{self.name} was written by a newer fersweep (schema {found}, this one knows {SCHEMA_VERSION})",
                hint="upgrade fersweep here, or set FERSWEEP_HOME to another folder",
            )
        else:
            self._version = found


def default_storage() -> str:
    """The database of this home: `sweeps.db` under ``FERSWEEP_HOME``."""
    return f"{sqlite.PREFIX}{files.home() / 'sweeps.db'}"


def database_path(storage: str) -> Path:
    """The file of a storage URL.

    Raises:
        InputError: The URL is not `sqlite:///PATH`.
    """
    if not storage.startswith(sqlite.PREFIX) or storage == sqlite.PREFIX:
        kind, separator, _ = storage.partition("://")  # the rest of the URL may contain a password
        raise InputError(
            f"storage {kind + '://...' if separator else '...'}: not a database that fersweep knows",
            hint="give sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE, or leave the storage out",
        )
    return Path(storage.removeprefix(sqlite.PREFIX)).absolute()


def check_storage(storage: str) -> str:
    """Check that a storage could be created, as far as that shows without touching it.

    Returns:
        Its URL as it may be shown and stored: valid in every folder, and without a password, which this process keeps.

    Raises:
        InputError: The URL is for neither engine, psycopg is missing, or SQLite would be on a network file system.
    """
    if storage.startswith(_POSTGRES):
        _check_psycopg()
        from fer_sweep.store import postgres  # only here: psycopg is optional

        return postgres.without_secrets(storage)
    path = database_path(storage)
    sqlite.check_place(path)
    return f"{sqlite.PREFIX}{path}"


def through_restarts(step: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Retry a step whose connection broke, so that a server can be restarted without ending an agent.

    The next transaction waits up to LOCK_TIMEOUT_S for the server. If the connection broke during the commit, the step
    may have been done, so doing it twice must be harmless. A step writes in one transaction:

    - reading, renewing or releasing leases, setting a sweep's state and finishing a trial are idempotent;
    - an epoch recorded twice is stored once, and not judged by early termination: the next one is;
    - a trial handed out twice is recognised by ``Leases`` and handed out as the next attempt. If the agent ends first,
      the trial's lease expires.
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


def _engine(storage: str, *, create: bool, end_waiting: Callable[[], bool]) -> "sqlite.SqliteFile | PostgresServer":
    if storage.startswith(_POSTGRES):
        _check_psycopg()
        from fer_sweep.store import postgres  # only here: psycopg is optional

        return postgres.PostgresServer(storage, end_waiting=end_waiting)
    return sqlite.SqliteFile(database_path(storage), create=create)


def _check_psycopg() -> None:
    try:
        importlib.import_module("psycopg")  # only here: it is optional
    except ImportError as error:
        raise InputError(
            f"storage {_POSTGRES}...: psycopg is not installed: {error}", hint="pip install 'fersweep[postgres]'"
        ) from error
