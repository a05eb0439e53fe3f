"""The tables that hold every sweep and trial, the same in every engine, and the way from older ones to these."""

from collections.abc import Mapping, Sequence

from fer_sweep.errors import StorageError
from fer_sweep.store.engine import Connection, Dialect

SCHEMA_VERSION = 2
"""Rises with every change of the tables that an older fersweep could not live with."""

UNENDED = "state IN ('running', 'preempted')"
"""The condition of a trial that runs or is to be gone on with. Spelt out, with no values to be put in: only so does an
engine see that the index of these trials has them all."""

UPGRADES: Mapping[int, Sequence[str]] = {
    1: ("ALTER TABLE fersweep_trials ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0",),
}
"""By schema version, the statements that make the next version of it; ``{real}`` and the like as in _TABLES. A version
that no released fersweep wrote needs none."""

_TABLES = (
    "CREATE TABLE fersweep_schema (version INTEGER NOT NULL)",
    """CREATE TABLE fersweep_sweeps (
        id TEXT PRIMARY KEY,
        position INTEGER NOT NULL,
        spec TEXT NOT NULL,
        state TEXT NOT NULL,
        max_gap {real},
        seed BIGINT NOT NULL,
        created {real} NOT NULL
    )""",
    """CREATE TABLE fersweep_trials (
        sweep_id TEXT NOT NULL REFERENCES fersweep_sweeps (id),
        number INTEGER NOT NULL,
        identity TEXT NOT NULL,
        config TEXT NOT NULL,
        parameters TEXT NOT NULL,
        memo TEXT,
        state TEXT NOT NULL,
        slot TEXT NOT NULL,
        owner TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        lease_until {real} NOT NULL,
        started {real} NOT NULL,
        ended {real},
        metrics TEXT NOT NULL,
        objectives TEXT,
        result TEXT,
        reason TEXT,
        given_back INTEGER NOT NULL DEFAULT 0,  -- not used any more
        PRIMARY KEY (sweep_id, number),
        UNIQUE (sweep_id, identity)
    )""",
    # Writers come one after another, so ids are seen in their order, and a reader can ask for what is new since the
    # last one it saw.
    """CREATE TABLE fersweep_reports (
        id {counted_key},
        sweep_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        metrics TEXT NOT NULL,
        UNIQUE (sweep_id, number, epoch)
    )""",
    "CREATE INDEX fersweep_reports_news ON fersweep_reports (sweep_id, id)",
    # Every proposal looks for a trial to go on with first, among thousands that have ended. Databases made before there
    # was this index do without.
    f"CREATE INDEX fersweep_trials_unended ON fersweep_trials (sweep_id, number) WHERE {UNENDED}",
)


def schema_version(connection: Connection, dialect: Dialect) -> int | None:
    """The version of the tables there are; None if there are none."""
    if connection.row(dialect.find_table, ["fersweep_schema"]) is None:
        return None
    row = connection.row("SELECT version FROM fersweep_schema")
    return None if row is None else int(row["version"])


def make_tables(connection: Connection, dialect: Dialect) -> None:
    """Make all tables, of which there is none yet."""
    for statement in _TABLES:
        connection.change(_spelt(statement, dialect))
    connection.change("INSERT INTO fersweep_schema (version) VALUES (?)", [SCHEMA_VERSION])


def way_up(
    name: str, found: int, *, to: int = SCHEMA_VERSION, upgrades: Mapping[int, Sequence[str]] = UPGRADES
) -> list[str]:
    """The statements that bring tables from one version to another.

    Args:
        name: The database's, for messages.
        found: The version there is.
        to: The version to be.
        upgrades: See UPGRADES.

    Raises:
        StorageError: There is no way: the tables are newer, or older than any there is a way from.
    """
    if found > to:
        raise StorageError(
            f"{name} was written by a newer fersweep (schema {found}, this one knows {to})",
            hint="upgrade fersweep here, or set FERSWEEP_HOME to another folder",
        )
    if missing := [version for version in range(found, to) if version not in upgrades]:
        raise StorageError(
            f"{name} was written by an older fersweep (schema {found}, this one knows {to}), and there is no way up "
            f"from schema {missing[0]}",
            hint="use the fersweep that wrote it, or set FERSWEEP_HOME to another folder and begin anew",
        )
    return [statement for version in range(found, to) for statement in upgrades[version]]


def upgrade(connection: Connection, dialect: Dialect, statements: Sequence[str], *, to: int = SCHEMA_VERSION) -> None:
    """Bring the tables up by the statements of ``way_up``."""
    for statement in statements:
        connection.change(_spelt(statement, dialect))
    connection.change("UPDATE fersweep_schema SET version = ?", [to])


def _spelt(statement: str, dialect: Dialect) -> str:
    return statement.format(real=dialect.real, counted_key=dialect.counted_key)
