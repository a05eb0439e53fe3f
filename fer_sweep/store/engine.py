"""What SQLite and PostgreSQL share below ``store.database``: open transactions, SQL dialects and errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fer_sweep.errors import InputError, StorageError

LOCK_TIMEOUT_S = 60.0
"""How long a transaction waits for another one to end, which takes milliseconds, or for a server to come back."""


class Row(Protocol):
    """A row of a query; its columns go by name."""

    def __getitem__(self, column: str, /) -> Any: ...


class Connection:
    """One open transaction. Values replace the ``?`` of a statement, in order."""

    def __init__(self, execute: Callable[[str, Sequence[Any]], Any]) -> None:
        self._execute = execute
        self.version = 0
        """Of the tables, as far as this process knows; see ``schema``."""
        self.place = ""
        """The database, for messages."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Row]:
        """All rows of a query."""
        found: Sequence[Row] = self._execute(sql, values).fetchall()
        return found

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of a query, or None."""
        found: Row | None = self._execute(sql, values).fetchone()
        return found

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement that writes; returns the number of rows it changed."""
        return int(self._execute(sql, values).rowcount)


@dataclass(frozen=True)
class Dialect:
    """What the engines spell differently."""

    real: str
    """The type of a 64-bit floating-point number."""
    counted_key: str
    """The type of a primary key that counts up in the order of commits and is never reused."""
    find_table: str
    """A query that has a row if the table named ``?`` exists."""


class NothingCreated(InputError):
    """The database, or its tables, do not exist yet."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no sweep has been created in {name}",
            hint="create one: fersweep create FILE; or give the storage with which it was created",
        )


class ConnectionLost(StorageError):
    """The connection to a database server broke within a transaction; the next transaction reconnects."""


class Interrupted(ConnectionLost):
    """The wait for a database server was ended, such as by Ctrl-C."""
