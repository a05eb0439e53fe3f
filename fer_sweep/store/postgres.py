"""PostgreSQL: one database for agents on many hosts. All that is PostgreSQL's own is here; needs psycopg.

Writers come one after another by an advisory lock that a transaction takes before it reads anything, and each of its
statements then sees all that was written before; readers have a snapshot of their own and wait for nobody.
"""

import contextlib
import functools
import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from psycopg.rows import dict_row

from fer_sweep.errors import StorageError
from fer_sweep.store.engine import LOCK_TIMEOUT_S, ConnectionLost, Dialect, Interrupted
from fer_sweep.store.postgres_urls import settings_of, without_secrets

SILENCE_S = LOCK_TIMEOUT_S / 2
"""A writer not heard of for so long, since its host has lost its power, is given up by the server: in time for those
who wait."""

_FIRST_RECONNECT_S, _LONGEST_RECONNECT_S = 0.1, 2.0
"""Between attempts to connect: longer each time and never the same, since a whole cluster of agents may be trying."""
_LOOK_UP_S = 0.5
"""How often one who waits for an answer sees whether there is still time to. Where hundreds wait for the lock, the
ten times a second that psycopg takes are a fifth of all that they do."""
_HURRY_S = 1.0
"""What a server may take for an answer where there is no time to wait for one."""
_HURRIED_CONNECT_S = 2
"""The same for a connection; libpq takes no less."""
_IS_FULL = re.compile("too many (clients|connections)|remaining connection slots|no more connections allowed")
"""How a server, or PgBouncer, says that it has as many connections as it takes; of an attempt to connect psycopg gives
no code. In another language than English the error is a general one."""
_LOCK = int.from_bytes(b"fersweep")
"""The number of the advisory lock that a writer holds."""
_DIALECT = Dialect(
    real="DOUBLE PRECISION",
    counted_key="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    # Not to_regclass: what it remembers may be older than the lock.
    find_table="SELECT relname FROM pg_catalog.pg_class WHERE relname = ? AND pg_table_is_visible(oid)",
)
_DEFAULTS: Mapping[str, Any] = {
    "application_name": "fersweep",
    "connect_timeout": 10,
    # A host that has lost its power says no goodbye: half a minute of silence is enough to know.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

_WAS_IN_TIME = "once the server is back, run the same command again: nothing recorded so far is lost"

_Answer = TypeVar("_Answer")


class _Connection:
    """See ``engine.Connection``."""

    def __init__(self, raw: psycopg.Connection[dict[str, Any]]) -> None:
        self._raw = raw

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        return self._run(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> dict[str, Any] | None:
        return self._run(sql, values).fetchone()

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self._run(sql, values).rowcount

    def _run(self, sql: str, values: Sequence[Any]) -> psycopg.Cursor[dict[str, Any]]:
        # A text of PostgreSQL holds no NUL, but the last words of a trial may.
        plain = [value.replace("\0", "\N{SYMBOL FOR NULL}") if isinstance(value, str) else value for value in values]
        return self._raw.execute(_with_marks(sql), plain)


class _Raw(psycopg.Connection[dict[str, Any]]):
    """psycopg's connection, whose waits for an answer can be ended."""

    end_waiting: Callable[[], bool] = staticmethod(lambda: False)

    def wait(
        self, gen: Generator[Any, Any, _Answer], interval: float = _LOOK_UP_S, *args: Any, **settings: Any
    ) -> _Answer:
        return super().wait(self._asked_whether_to_wait(gen), interval, *args, **settings)

    def _asked_whether_to_wait(self, gen: Generator[Any, Any, _Answer]) -> Generator[Any, Any, _Answer]:
        began = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                # psycopg comes back with nothing every _LOOK_UP_S while it waits.
                if not ready and self.end_waiting() and time.monotonic() - began > _HURRY_S:
                    self.pgconn.finish()  # in the middle of an answer, from where there is no way back
                    raise Interrupted(f"the database has not answered in {_HURRY_S:g} s", hint=_WAS_IN_TIME)
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: _Answer = end.value
            return answer


class PostgresServer:
    """A database of a server, connected to; see ``engine.Engine``."""

    dialect = _DIALECT

    def __init__(self, storage: str, *, lock_timeout_s: float, end_waiting: Callable[[], bool] = lambda: False) -> None:
        """Connect.

        Args:
            storage: `postgresql+psycopg://USER@HOST:PORT/DATABASE?SETTING=VALUE`; whatever is left out, the password
                first of all, comes from PGPASSWORD, PGPASSFILE, PGSERVICE and the like.
            lock_timeout_s: How long a transaction waits for another one's end, or for the server to come back.
            end_waiting: Asked while it waits; where it is true, ``Interrupted`` is raised.

        Raises:
            InputError: It is no such URL.
            StorageError: The server cannot be reached, or refuses.
        """
        # A setting with a value that makes no sense is told by the attempt to connect.
        self.name = without_secrets(storage)
        self._lock_timeout_s = lock_timeout_s
        self._end_waiting = end_waiting
        self._ahead_s = 0.0
        """The server's clock less this host's."""
        self._target = make_conninfo(**{**_DEFAULTS, **settings_of(self.name)})
        try:
            self._raw = self._first_connection()
        except psycopg.Error as error:
            raise self._explain(error) from error

    def clock(self) -> float:
        """The server's, as it was seen in the latest transaction: agents' hosts need not agree on the time."""
        return time.time() + self._ahead_s

    def close(self) -> None:
        """Disconnect."""
        self._raw.close()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[_Connection]:
        """See ``engine.Engine``; begins by connecting again where the connection has broken meanwhile.

        Where it breaks within the block, nothing has changed. Where it breaks while what was done is written, this
        cannot be known here; it is the callers' to be such that doing it again does no harm, see
        ``database.through_restarts``.
        """
        try:
            self._begin(write=write)
        except psycopg.Error as error:
            raise self._explain(error) from error
        try:
            yield _Connection(self._raw)
        except psycopg.Error as error:
            self._undo()
            if not self._raw.closed:
                raise self._explain(error) from error
            raise ConnectionLost(
                f"{self.name}: the connection broke, and nothing has changed: {_words(error)}",
                hint="once the server is back, run the same command again",
            ) from error
        except BaseException:
            self._undo()
            raise
        self._commit(write=write)

    def _begin(self, *, write: bool) -> None:
        deadline = time.monotonic() + self._lock_timeout_s
        for pause_s in _pauses():
            try:
                if self._raw.closed:
                    self._raw = self._connect()
                self._run_begin(write=write)
                return
            except psycopg.OperationalError as error:
                if not self._raw.closed:
                    self._undo()
                    raise
                if self._end_waiting():
                    raise Interrupted(f"{self.name}: {_words(error)}", hint=_WAS_IN_TIME) from error
                if time.monotonic() >= deadline:
                    raise
            time.sleep(pause_s)

    def _run_begin(self, *, write: bool) -> None:
        wait_ms = max(1, round(1000 * self._lock_timeout_s))
        if write:
            # The lock before anything is read, and a snapshot a statement: one that was taken before the lock was had
            # would not show what its former holder wrote.
            begin = (
                f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {wait_ms};"
                f" SET LOCAL idle_in_transaction_session_timeout = {round(1000 * SILENCE_S)};"
                f" SELECT pg_advisory_xact_lock({_LOCK})"
            )
        else:
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        cursor = self._raw.execute(f"{begin}; SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row is not None
        self._ahead_s = row["now"] - time.time()

    def _undo(self) -> None:
        if self._raw.closed:
            return  # the server undoes it by itself
        try:
            self._raw.execute("ROLLBACK")
        except psycopg.Error:
            self._raw.close()  # in the middle of an answer, after Ctrl-C: there is no way back from there

    def _commit(self, *, write: bool) -> None:
        try:
            self._raw.execute("COMMIT")
        except psycopg.Error as error:
            if not write:
                return  # all was read; the next transaction connects again
            if not self._raw.closed:
                raise self._explain(error) from error
            raise ConnectionLost(
                f"{self.name}: the connection broke while what was done was being written: {_words(error)}",
                hint="see by `fersweep status` whether it has been, before you do it again",
            ) from error

    def _first_connection(self) -> _Raw:
        deadline, pauses = time.monotonic() + self._lock_timeout_s, _pauses()
        while True:
            try:
                return self._connect()
            except psycopg.OperationalError as error:
                # One that is just starting, or has no connection left, is waited for; whatever else there is, such as a
                # typing error, will stay.
                will_pass = _IS_FULL.search(str(error)) or PGconn.ping(self._target.encode()) == Ping.REJECT
                if time.monotonic() >= deadline or not will_pass:
                    raise
                if self._end_waiting():
                    raise Interrupted(f"{self.name}: {_words(error)}", hint=_WAS_IN_TIME) from error
            time.sleep(next(pauses))

    def _connect(self) -> _Raw:
        # Nothing is prepared, so that PgBouncer may stand between.
        hurried = {"connect_timeout": _HURRIED_CONNECT_S} if self._end_waiting() else {}
        raw = _Raw.connect(
            make_conninfo(self._target, **hurried),
            autocommit=True,
            prepare_threshold=None,
            client_encoding="utf8",
            row_factory=dict_row,
        )
        raw.end_waiting = self._end_waiting
        return raw

    def _explain(self, error: psycopg.Error) -> StorageError:
        return StorageError(f"{self.name}: {_words(error)}", hint=_advice(error))


def _pauses() -> Iterator[float]:
    longest = _FIRST_RECONNECT_S
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(1.5 * longest, _LONGEST_RECONNECT_S)


@functools.lru_cache(maxsize=256)
def _with_marks(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _words(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())


def _advice(error: psycopg.Error) -> str:
    """What to do about it."""
    if _IS_FULL.search(str(error)):
        return (
            "each agent holds one connection: raise the server's max_connections, or put PgBouncer between, with "
            "pool_mode = transaction; or end agents"
        )
    if isinstance(error, errors.LockNotAvailable):
        return "another process holds the database: end it, or try again"
    if isinstance(error, errors.DiskFull):
        return "the server's disk is full: make room there, then run the same command again"
    if isinstance(error, errors.InsufficientPrivilege):
        return "let the user make tables there: GRANT CREATE, USAGE ON SCHEMA public TO USER"
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return "it is a server to read from: give the address of the one that is written to"
    if error.pgconn is not None and (error.pgconn.needs_password or error.pgconn.used_password):
        return (
            "give the password by PGPASSWORD or ~/.pgpass: fersweep writes it down nowhere, so every command needs it"
        )
    return "see that the server runs and lets you in, then run the same command again; nothing recorded so far is lost"
