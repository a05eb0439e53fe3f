"""PostgreSQL: one database for agents on many hosts; needs psycopg.

Writers take turns by an advisory lock, which a transaction takes before it reads anything, so each of its statements
sees everything written before. Readers have a snapshot and never wait.
"""

import contextlib
import functools
import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, PGconn, Ping
from psycopg.rows import dict_row

from fer_sweep.errors import InputError, StorageError
from fer_sweep.store import engine
from fer_sweep.store.engine import Connection, ConnectionLost, Dialect, Interrupted

PREFIX = "postgresql+psycopg://"
SILENCE_S = engine.LOCK_TIMEOUT_S / 2
"""The server ends a writer that is silent for so long, since its host has lost power: before others stop waiting."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
"""Between attempts to connect: backoff with jitter, since a whole cluster of agents may be trying."""
_LOOK_UP_S = 0.5
"""How often a wait for an answer looks whether to end. Where hundreds wait for the lock, psycopg's ten times a second
are a fifth of all that they do."""
_HURRY_S = 1.0
"""How long a server may take to answer once the wait is to end."""
_HURRIED_CONNECT_S = 2
"""The same for a connection; libpq's minimum."""
_IS_FULL = re.compile("too many (clients|connections)|remaining connection slots|no more connections allowed")
"""How a server, or PgBouncer, says that it has no connection left: psycopg gives no code for an attempt to connect. In
other languages than English the error is a general one."""
_IS_RESTARTING = re.compile("server closed the connection unexpectedly|is (starting up|shutting down)|in recovery mode")
"""How an attempt to connect fails while the server restarts; a moment later, the server may answer a ping already."""
_LOCK = int.from_bytes(b"fersweep")
"""The number of the advisory lock of writers."""
_DEFAULTS: Mapping[str, Any] = {
    "application_name": "fersweep",
    "connect_timeout": 10,
    # A host that has lost power closes no connection: half a minute of silence is enough to know.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
_HINTS: Mapping[type[psycopg.Error], str] = {
    errors.LockNotAvailable: "another process holds the database: end it, or try again",
    errors.DiskFull: "the server's disk is full: make room there, then run the same command again",
    errors.InsufficientPrivilege: "let the user make tables there: GRANT CREATE, USAGE ON SCHEMA public TO USER",
    errors.ReadOnlySqlTransaction: "it is a server to read from: give the address of the one that is written to",
}
_WHEN_BACK = "once the server is back, run the same command again: nothing recorded so far is lost"

_HOST = r"[^@/?:,\[\]]*(?:\[[0-9a-fA-F:.]*\])?(?::\d*)?"
_URL = re.compile(
    re.escape(PREFIX) + r"(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    rf"(?P<place>{_HOST}(?:,{_HOST})*(?:/[^@/?]*)?)(?:\?(?P<query>.*))?"
)
"""The URLs that libpq reads, without those that it would misread, such as a part of a password as a port."""
_SETTINGS = {option.keyword.decode(): option.dispchar for option in Conninfo.get_defaults()}
"""The settings of libpq, each with its mark."""
_SECRET = {name for name, mark in _SETTINGS.items() if mark == b"*"} | {"scram_client_key", "scram_server_key"}
"""Those that are never stored: marked as not to be shown, or as good as a password."""
_given: dict[str, Mapping[str, str]] = {}
"""The secrets in the URLs that this process was given, by the URL without them. They stay in its memory."""

_Answer = TypeVar("_Answer")


def without_secrets(storage: str) -> str:
    """A storage URL that may be shown and stored; this process keeps its secrets in memory.

    >>> without_secrets("postgresql+psycopg://me:secret@host/db?sslmode=require&sslpassword=x")
    'postgresql+psycopg://me@host/db?sslmode=require'

    Raises:
        InputError: It is not the URL of a PostgreSQL database.
    """
    unreadable = InputError(
        "storage postgresql+psycopg:... cannot be read",  # any part of the rest may belong to a password
        hint="give postgresql+psycopg://USER@HOST:PORT/DATABASE?SETTING=VALUE, with @ : / ? # % & in names as %40 %3A "
        "%2F %3F %23 %25 %26, and the password in PGPASSWORD or ~/.pgpass",
    )
    parts = _URL.fullmatch(storage)
    pairs = [pair.partition("=") for pair in (parts["query"] or "").split("&") if pair] if parts else []
    if parts is None or not all(separator and name in _SETTINGS for name, separator, _ in pairs):
        raise unreadable
    secrets = {name: unquote(value) for name, _, value in pairs if name in _SECRET}
    if parts["password"]:
        secrets["password"] = unquote(parts["password"])
    shown = "&".join(f"{name}={value}" for name, _, value in pairs if name not in _SECRET)
    user = f"{parts['user']}@" if parts["user"] else ""
    clean = f"{PREFIX}{user}{parts['place']}{'?' if shown else ''}{shown}"
    try:
        _settings_of(clean)
    except (psycopg.Error, UnicodeDecodeError):  # such as of an invalid %-code
        raise unreadable from None
    if "\0" in "".join(secrets.values()):
        raise unreadable
    if secrets:
        _given[clean] = secrets
    return clean


def _settings_of(clean: str) -> dict[str, Any]:
    """What libpq needs for a URL of ``without_secrets``, including its secrets."""
    return {**conninfo_to_dict(f"postgresql://{clean.removeprefix(PREFIX)}"), **_given.get(clean, {})}


class _Raw(psycopg.Connection[dict[str, Any]]):
    """psycopg's connection; a wait for an answer ends when ``end_waiting`` says so."""

    end_waiting: Callable[[], bool] = staticmethod(lambda: False)

    def wait(
        self, gen: Generator[Any, Any, _Answer], interval: float = _LOOK_UP_S, *args: Any, **settings: Any
    ) -> _Answer:
        return super().wait(self._interruptible(gen), interval, *args, **settings)

    def _interruptible(self, gen: Generator[Any, Any, _Answer]) -> Generator[Any, Any, _Answer]:
        began, ready = time.monotonic(), None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                answer: _Answer = end.value
                return answer
            ready = yield wanted  # false every _LOOK_UP_S without an answer
            if not ready and self.end_waiting() and time.monotonic() - began > _HURRY_S:
                self.pgconn.finish()  # a connection in the middle of an answer cannot be used again
                raise Interrupted(f"the database has not answered in {_HURRY_S:g} s", hint=_WHEN_BACK)


class PostgresServer:
    """A database of a server; see ``database.Database``. The first transaction connects, and others reconnect."""

    dialect = Dialect(
        real="DOUBLE PRECISION",
        counted_key="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        # Not to_regclass, whose cache may be older than the lock.
        find_table="SELECT relname FROM pg_catalog.pg_class WHERE relname = ? AND pg_table_is_visible(oid)",
    )

    def __init__(self, storage: str, *, end_waiting: Callable[[], bool] = lambda: False) -> None:
        """Read the URL; what it leaves out, such as the password, comes from PGPASSWORD, PGSERVICE and the like."""
        self.name = without_secrets(storage)
        self._end_waiting = end_waiting
        self._ahead_s = 0.0
        """The server's clock minus this host's."""
        self._target = make_conninfo(**{**_DEFAULTS, **_settings_of(self.name)})
        self._raw: _Raw | None = None

    def clock(self) -> float:
        """The server's, as of the latest transaction, since the hosts of agents may disagree: Unix time, seconds."""
        return time.time() + self._ahead_s

    def close(self) -> None:
        """Disconnect."""
        if self._raw is not None:
            self._raw.close()

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """See ``Database.transaction``; if the connection breaks during the commit, the outcome is unknown."""
        raw = self._begin(write=write)
        try:
            yield Connection(functools.partial(_execute, raw))
        except psycopg.Error as error:
            _roll_back(raw)
            if not raw.closed:
                raise self._explain(error) from error
            raise ConnectionLost(
                f"{self.name}: the connection broke, and nothing has changed: {_words(error)}",
                hint="once the server is back, run the same command again",
            ) from error
        except BaseException:
            _roll_back(raw)
            raise
        try:
            raw.execute("COMMIT")
        except psycopg.Error as error:
            if not write:
                return  # everything was read; the next transaction reconnects
            if not raw.closed:
                raise self._explain(error) from error
            raise ConnectionLost(
                f"{self.name}: the connection broke while what was done was being written: {_words(error)}",
                hint="see by `fersweep status` whether it has been, before you do it again",
            ) from error

    def _begin(self, *, write: bool) -> _Raw:
        deadline, pauses = time.monotonic() + engine.LOCK_TIMEOUT_S, _pauses()
        while True:
            try:
                if self._raw is None or self._raw.closed:
                    self._raw = self._connect()
                self._run_begin(self._raw, write=write)
                return self._raw
            except psycopg.Error as error:
                if self._raw is not None:
                    _roll_back(self._raw)
                if not self._is_temporary(error) or time.monotonic() >= deadline:
                    raise self._explain(error) from error
                if self._end_waiting():
                    raise Interrupted(f"{self.name}: {_words(error)}", hint=_WHEN_BACK) from error
            time.sleep(next(pauses))

    def _is_temporary(self, error: psycopg.Error) -> bool:
        if self._raw is not None:
            return self._raw.closed
        # The first connection: a server that is starting or full is waited for, a mistake in the URL is not.
        if _IS_FULL.search(str(error)) or _IS_RESTARTING.search(str(error)):
            return True
        return PGconn.ping(self._target.encode()) == Ping.REJECT

    def _run_begin(self, raw: _Raw, *, write: bool) -> None:
        if write:
            # The lock before anything is read, and a snapshot a statement: one taken before the lock would not show
            # what its former holder wrote.
            begin = (
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
                f" SET LOCAL lock_timeout = {max(1, round(1000 * engine.LOCK_TIMEOUT_S))};"
                f" SET LOCAL idle_in_transaction_session_timeout = {round(1000 * SILENCE_S)};"
                f" SELECT pg_advisory_xact_lock({_LOCK})"
            )
        else:
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        cursor = raw.execute(f"{begin}; SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row is not None
        self._ahead_s = row["now"] - time.time()

    def _connect(self) -> _Raw:
        hurried = {"connect_timeout": _HURRIED_CONNECT_S} if self._end_waiting() else {}
        raw = _Raw.connect(
            make_conninfo(self._target, **hurried),
            autocommit=True,
            prepare_threshold=None,  # for PgBouncer
            client_encoding="utf8",
            row_factory=dict_row,
        )
        raw.end_waiting = self._end_waiting
        return raw

    def _explain(self, error: psycopg.Error) -> StorageError:
        return StorageError(f"{self.name}: {_words(error)}", hint=_advice(error))


def _execute(raw: _Raw, sql: str, values: Sequence[Any]) -> psycopg.Cursor[dict[str, Any]]:
    # PostgreSQL stores no NUL in a text, but the output of a failed trial may contain one.
    plain = [value.replace("\0", "\N{SYMBOL FOR NULL}") if isinstance(value, str) else value for value in values]
    return raw.execute(_with_marks(sql), plain)


@functools.lru_cache(maxsize=256)
def _with_marks(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _roll_back(raw: _Raw) -> None:
    """Roll back; if that fails too, as in the middle of an answer, close the connection, and the server does it."""
    if raw.closed:
        return
    try:
        raw.execute("ROLLBACK")
    except psycopg.Error:
        raw.close()


def _pauses() -> Iterator[float]:
    longest = _FIRST_PAUSE_S
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(1.5 * longest, _LONGEST_PAUSE_S)


def _words(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())


def _advice(error: psycopg.Error) -> str:
    if _IS_FULL.search(str(error)):
        return (
            "each agent holds one connection: raise the server's max_connections, or put PgBouncer between, with "
            "pool_mode = transaction; or end agents"
        )
    for kind, hint in _HINTS.items():
        if isinstance(error, kind):
            return hint
    if error.pgconn is not None and (error.pgconn.needs_password or error.pgconn.used_password):
        return "give the password by PGPASSWORD or ~/.pgpass: fersweep never stores it, so every command needs it"
    return "see that the server runs and lets you in, then run the same command again; nothing recorded so far is lost"
