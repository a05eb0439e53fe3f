"""The tables of all sweeps and trials, the same in SQLite and PostgreSQL, and the upgrades from older versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    insert,
    inspect,
    select,
    text,
    update,
)

from fer_sweep.errors import StorageError

SCHEMA_VERSION = 2
"""Raise it with every change of the tables that an older fersweep could not work with."""

UNENDED = text("state IN ('running', 'preempted')")
"""Selects running and preempted trials. Literal, without bound values: otherwise a database does not see that the
partial index below covers the query."""

UPGRADES: Mapping[int, Sequence[str]] = {
    1: ("ALTER TABLE fersweep_trials ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0",),
}
"""By schema version, the statements that lead to the next version."""


class PlainText(TypeDecorator[str]):
    """Text in which NUL, which PostgreSQL refuses, is stored as its symbol; the last lines of a log may contain it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str | None:
        """Replace NUL; also turns a StrEnum into a plain string, which psycopg needs."""
        return None if value is None else value.replace("\0", "\N{SYMBOL FOR NULL}")


_metadata = MetaData()

schema = Table("fersweep_schema", _metadata, Column("version", Integer, nullable=False))

sweeps = Table(
    "fersweep_sweeps",
    _metadata,
    Column("id", PlainText, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("spec", PlainText, nullable=False),
    Column("state", PlainText, nullable=False),
    Column("max_gap", Double),
    Column("seed", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
)

trials = Table(
    "fersweep_trials",
    _metadata,
    Column("sweep_id", PlainText, ForeignKey("fersweep_sweeps.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("identity", PlainText, nullable=False),
    Column("config", PlainText, nullable=False),
    Column("parameters", PlainText, nullable=False),
    Column("memo", PlainText),
    Column("state", PlainText, nullable=False),
    Column("slot", PlainText, nullable=False),
    Column("owner", PlainText, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Column("metrics", PlainText, nullable=False),
    Column("objectives", PlainText),
    Column("result", PlainText),
    Column("reason", PlainText),
    Column("given_back", Integer, nullable=False, server_default=text("0")),  # unused since the second edition
    UniqueConstraint("sweep_id", "identity"),
)
# Each proposal first looks for an unended trial among thousands that have ended. Older databases lack this index.
Index(
    "fersweep_trials_unended",
    trials.c.sweep_id,
    trials.c.number,
    sqlite_where=UNENDED,
    postgresql_where=UNENDED,
)

# Writers take turns, so ids become visible in order, and a reader can ask for all reports after the last one it has.
reports = Table(
    "fersweep_reports",
    _metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(always=True), primary_key=True),
    Column("sweep_id", PlainText, nullable=False),
    Column("number", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("metrics", PlainText, nullable=False),
    UniqueConstraint("sweep_id", "number", "epoch"),
    sqlite_autoincrement=True,  # never use an id again
)
Index("fersweep_reports_news", reports.c.sweep_id, reports.c.id)


def read_version(connection: Connection) -> int | None:
    """The schema version of a database; None if it has no tables."""
    if not inspect(connection).has_table(schema.name):
        return None
    return connection.execute(select(schema.c.version)).scalar()


def check_version(name: str, found: int) -> None:
    """Check that tables of this version can be used or upgraded.

    Args:
        name: The database's name, for messages.
        found: Its schema version.

    Raises:
        StorageError: The version is newer than this fersweep, or too old.
    """
    if found > SCHEMA_VERSION:
        raise StorageError(
            f"{name} was written by a newer fersweep (schema {found}, this one knows {SCHEMA_VERSION})",
            hint="upgrade fersweep here, or set FERSWEEP_HOME to another folder",
        )
    if found < min(UPGRADES):
        raise StorageError(
            f"{name} was written by an older fersweep (schema {found}), and this one upgrades from schema "
            f"{min(UPGRADES)} on",
            hint="use the fersweep that wrote it, or set FERSWEEP_HOME to another folder",
        )


def make_current(connection: Connection, name: str) -> None:
    """Create the tables, or upgrade them to SCHEMA_VERSION.

    Raises:
        StorageError: See ``check_version``.
    """
    found = read_version(connection)
    if found is None:
        _metadata.create_all(connection)
        connection.execute(insert(schema).values(version=SCHEMA_VERSION))
        return
    check_version(name, found)
    for version in range(found, SCHEMA_VERSION):
        for statement in UPGRADES[version]:
            connection.execute(text(statement))
    connection.execute(update(schema).values(version=SCHEMA_VERSION))
