"""PostgreSQL: one database for agents on many hosts; needs psycopg.

Writers take turns by an advisory lock that a transaction takes before it reads anything; each of its statements then
sees all that was committed before. Readers have a snapshot and wait for nobody. No setting outlives its transaction,
so PgBouncer may stand between.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from sqlalchemy import Connection, ExceptionContext, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from fer_sweep.store.engine import LOCK_TIMEOUT_S, Interrupted, roll_back, words
from fer_sweep.store.postgres_urls import settings_of, without_secrets

SILENCE_S = LOCK_TIMEOUT_S / 2
"""The server ends a writer that is silent for so long, since its host lost power: in time for those that wait."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
"""Between attempts to connect: growing and random, since a whole cluster of agents may be trying."""
_LOCK_WAIT_S = 5.0
"""How long one attempt to get the lock takes; between attempts the wait can be interrupted."""
_HURRY_S = 1.0
"""The same when the wait has been interrupted."""
_HURRIED_CONNECT_S = 2
"""The connection timeout when the wait has been interrupted; libpq accepts no less."""
_IS_FULL = re.compile("too many (clients|connections)|remaining connection slots|no more connections allowed")
"""How a server or PgBouncer refuses a connection when it has no more; such an error has no code."""
_LOCK = int.from_bytes(b"fersweep")
"""The number of the advisory lock."""
_DEFAULTS: Mapping[str, Any] = {
    "application_name": "fersweep",
    "connect_timeout": 10,
    # Detect a host that lost power within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


class PostgresServer:
    """A database on a server; see ``engine.Backend``."""

    def __init__(self, storage: str, *, lock_timeout_s: float, end_waiting: Callable[[], bool]) -> None:
        """Connect to nothing yet.

        Args:
            storage: `postgresql+psycopg://USER@HOST:PORT/DATABASE?SETTING=VALUE`; what it leaves out, such as the
                password, comes from PGPASSWORD, PGPASSFILE, PGSERVICE and the like.
            lock_timeout_s: How long a transaction waits for another one, or for the server to come back.
            end_waiting: Asked between attempts; where it is true, ``Interrupted`` is raised.

        Raises:
            InputError: The URL cannot be read.
        """
        self.name = without_secrets(storage)
        self._lock_timeout_s = lock_timeout_s
        self._end_waiting = end_waiting
        self._ahead_s = 0.0
        """The server's clock less this host's."""
        self._has_connected = False
        self._target = make_conninfo(**{**_DEFAULTS, **settings_of(self.name)})
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            use_native_hstore=False,
        )
        event.listen(self._engine, "handle_error", _see_whether_closed)

    def clock(self) -> float:
        """The server's clock as of the last transaction: the hosts' clocks may differ."""
        return time.time() + self._ahead_s

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()

    def begin(self, *, write: bool) -> Connection:
        """See ``Backend.begin``; reconnects if the connection is broken."""
        deadline = time.monotonic() + self._lock_timeout_s
        for pause_s in _pauses():
            try:
                return self._try_to_begin(write, deadline)
            except DBAPIError as error:
                is_locked = isinstance(error.orig, errors.LockNotAvailable)
                if not is_locked and not self._may_come_back(error):
                    raise
                if self._end_waiting():
                    raise Interrupted(
                        f"{self.name}: {words(error)}",
                        hint="once the server is back, run the same command again: nothing recorded so far is lost",
                    ) from error
                if time.monotonic() >= deadline:
                    raise
            if not is_locked:
                time.sleep(pause_s)
        raise AssertionError("there is always another pause")

    def advice(self, error: DBAPIError) -> str:
        """See ``Backend.advice``."""
        cause = error.orig
        if _IS_FULL.search(str(cause)):
            return (
                "each agent holds one connection: raise the server's max_connections, or put PgBouncer between, with "
                "pool_mode = transaction; or end agents"
            )
        if isinstance(cause, errors.LockNotAvailable):
            return "another process holds the database: end it, or try again"
        if isinstance(cause, errors.DiskFull):
            return "the server's disk is full: make room there, then run the same command again"
        if isinstance(cause, errors.InsufficientPrivilege):
            return "let the user create tables there: GRANT CREATE, USAGE ON SCHEMA public TO USER"
        if isinstance(cause, errors.ReadOnlySqlTransaction):
            return "this server is read-only: give the address of the primary server"
        pgconn = cause.pgconn if isinstance(cause, psycopg.Error) else None
        if pgconn is not None and (pgconn.needs_password or pgconn.used_password):
            return "give the password in PGPASSWORD or ~/.pgpass: fersweep never stores it, so every command needs it"
        return (
            "check that the server runs and accepts your connection, then run the same command again; "
            "nothing recorded so far is lost"
        )

    def _try_to_begin(self, write: bool, deadline: float) -> Connection:
        connection = self._engine.connect()
        self._has_connected = True
        try:
            if write:
                # The lock comes before anything is read, and each statement has its own snapshot: one that was taken
                # before the lock would not show what the lock's former holder wrote.
                wait_s = min(_HURRY_S if self._end_waiting() else _LOCK_WAIT_S, deadline - time.monotonic())
                connection.exec_driver_sql(
                    f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
                    f" SET LOCAL lock_timeout = {max(1, round(1000 * wait_s))};"
                    f" SET LOCAL idle_in_transaction_session_timeout = {round(1000 * SILENCE_S)};"
                    f" SELECT pg_advisory_xact_lock({_LOCK})"
                )
            else:
                connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            now = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())::float8").scalar_one()
            self._ahead_s = now - time.time()
        except BaseException:
            roll_back(connection)
            connection.close()
            raise
        return connection

    def _may_come_back(self, error: DBAPIError) -> bool:
        has_connection = error.statement is not None and not error.connection_invalidated
        if has_connection or not isinstance(error.orig, psycopg.OperationalError):
            return False
        if self._has_connected:
            return True
        # At first, a server that is starting or has no connection left; any other error, such as a typo, stays.
        return bool(_IS_FULL.search(str(error.orig))) or PGconn.ping(self._target.encode()) == Ping.REJECT

    def _connect(self) -> "psycopg.Connection[Any]":
        hurried = {"connect_timeout": _HURRIED_CONNECT_S} if self._end_waiting() else {}
        # Autocommit leaves BEGIN to this module. Statements that are prepared would outlive their transaction.
        return psycopg.Connection.connect(
            make_conninfo(self._target, **hurried), autocommit=True, prepare_threshold=None, client_encoding="utf8"
        )


def _see_whether_closed(context: ExceptionContext) -> None:
    # SQLAlchemy does not see that the server ends a session that was idle in its transaction for too long.
    if context.connection is not None and not context.connection.invalidated:
        raw = context.connection.connection.dbapi_connection
        context.is_disconnect = context.is_disconnect or (raw is not None and bool(raw.closed))


def _pauses() -> Iterator[float]:
    longest = _FIRST_PAUSE_S
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(1.5 * longest, _LONGEST_PAUSE_S)
