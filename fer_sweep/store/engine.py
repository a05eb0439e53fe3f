"""What the two databases share: the seam that each implements, and the errors of both."""

from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from fer_sweep.errors import InputError, StorageError

LOCK_TIMEOUT_S = 60.0
"""How long to wait for another process's transaction, which takes milliseconds, or for a server to come back."""


class Backend(Protocol):
    """SQLite or PostgreSQL: where they differ."""

    name: str
    """The database as shown to people: the file's path, or the URL without its password."""

    def begin(self, *, write: bool) -> Connection:
        """Begin a transaction; a writing one shuts out other writers, a reading one sees one moment and never waits.

        Raises:
            InputError: The database must not be written where it is.
            ConnectionLost: The server did not come back in time.
            StorageError: The database cannot be used.
            DBAPIError: The same, to be explained by ``advice``.
        """
        ...

    def advice(self, error: DBAPIError) -> str:
        """What the user can do about an error."""
        ...

    def clock(self) -> float:
        """Unix time in seconds, by a clock that all users of the database share."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class NothingCreated(InputError):
    """There is no database, or it has no tables of fersweep."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no sweep has been created in {name}",
            hint="create one: fersweep create FILE; or give the --storage with which it was created",
        )


class ConnectionLost(StorageError):
    """The connection to the database server broke within a transaction; the next transaction reconnects."""


class Interrupted(ConnectionLost):
    """The wait for a database server was interrupted, for example by Ctrl-C."""


def roll_back(connection: Connection) -> None:
    """Roll back; drop the connection if that fails."""
    try:
        connection.rollback()
    except DBAPIError:
        connection.invalidate()


def words(error: DBAPIError) -> str:
    """The message of an error, in one line."""
    said = getattr(getattr(error.orig, "diag", None), "message_primary", None)  # PostgreSQL's, without its details
    return " ".join((said or str(error.orig)).split())
