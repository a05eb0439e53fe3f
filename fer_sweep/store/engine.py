"""The seam below ``search.database``: what SQLite and PostgreSQL each bring, and nothing that they share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from fer_sweep.errors import InputError, StorageError

LOCK_TIMEOUT_S = 60.0
"""How long to wait for another process's transaction, which takes milliseconds, or for a server to come back."""


class Row(Protocol):
    """A row of a query; its columns go by name."""

    def __getitem__(self, column: str, /) -> Any: ...


class Connection(Protocol):
    """One open transaction. Values stand for the ``?`` of a statement, in order."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Row]:
        """All rows of a query."""
        ...

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of a query, or None."""
        ...

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement that writes; returns the number of rows it touched."""
        ...


@dataclass(frozen=True)
class Dialect:
    """What engines spell differently."""

    real: str
    """The type of a number of 64 bits with a point."""
    counted_key: str
    """The type of a primary key that counts up by itself, in the order of commits, and is never used again."""
    find_table: str
    """A query that has a row if there is a table of the name ``?``."""


class Engine(Protocol):
    """One open database."""

    name: str
    """What people know it by; holds no password."""
    dialect: Dialect

    def transaction(self, *, write: bool) -> AbstractContextManager[Connection]:
        """All or nothing: committed when the block ends well, undone otherwise. One at a time.

        What a writing transaction reads stays true until its end, and so does what a reading one reads; a reading one
        waits for nobody.

        Raises:
            InputError: It is not to be written where it lies.
            ConnectionLost: The server went away in the middle.
            StorageError: It cannot be read or written; nothing has changed.
        """
        ...

    def clock(self) -> float:
        """Unix time in seconds, by a clock that all who use this database go by."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class NothingCreated(InputError):
    """There is no database yet, or none of fersweep's tables in it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no sweep has been created in {name}",
            hint="create one: fersweep create FILE; or give the --storage with which it was created",
        )


class ConnectionLost(StorageError):
    """The connection to a database server broke within a transaction; the next transaction makes a new one."""


class Interrupted(ConnectionLost):
    """A server was waited for until there was no time for that any more, such as after Ctrl-C."""
