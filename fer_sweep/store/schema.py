"""The tables with every sweep and trial, the same in both engines."""

import json
from collections.abc import Sequence

from fer_sweep.store.engine import Connection, Dialect

SCHEMA_VERSION = 4
"""Rises with every change of the tables that an older fersweep cannot work with.

Version 1 lacks the column ``given_back``, which nothing uses any more; 1 and 2 lack what ``_ADDED_BY_3`` adds, and 3
what ``_ADDED_BY_4`` adds. The first writing transaction brings them to this version; until then they are read as they
are.
"""

UNENDED = "state IN ('running', 'preempted', 'paused')"
"""The condition of a trial that has not ended. Spelt out without values: only then do the engines see that the partial
index covers it."""

_ADDED_BY_3 = (
    # Epochs, reported by all trials together, from which on no new trial starts; NULL for no limit.
    "ALTER TABLE fersweep_sweeps ADD COLUMN budget_epochs INTEGER",
    # Number of the first trial whose memo belongs to the present space; NULL for a sweep that was never steered: all
    # of its trials come from one space.
    "ALTER TABLE fersweep_sweeps ADD COLUMN steered INTEGER",
    # Configurations picked by hand: the next trials.
    """CREATE TABLE fersweep_queue (
        id {counted_key},
        sweep_id TEXT NOT NULL,
        config TEXT NOT NULL,
        parameters TEXT NOT NULL
    )""",
    # Complete trials of other sweeps that the search learns from.
    """CREATE TABLE fersweep_priors (
        id {counted_key},
        sweep_id TEXT NOT NULL,
        config TEXT NOT NULL,
        parameters TEXT NOT NULL,
        objectives TEXT NOT NULL,
        gap {real}
    )""",
)

_ADDED_BY_4 = (
    # How a sweep of method bayes searches; NULL to choose by its file.
    "ALTER TABLE fersweep_sweeps ADD COLUMN sampler TEXT",
    # Of an earlier sweep's trial: the sweep, whether its results compare as they are, and its metrics by epoch; NULL
    # for one recorded before, of which the results are known and compare.
    "ALTER TABLE fersweep_priors ADD COLUMN source TEXT",
    "ALTER TABLE fersweep_priors ADD COLUMN is_alike INTEGER",
    "ALTER TABLE fersweep_priors ADD COLUMN curves TEXT",
    # 1 for a sweep that finishes once going on is not worth it.
    "ALTER TABLE fersweep_sweeps ADD COLUMN until_converged INTEGER NOT NULL DEFAULT 0",
    # Every proposal first looks for a trial to resume, among thousands that have ended. Until version 4 the index did
    # not cover paused trials.
    "DROP INDEX IF EXISTS fersweep_trials_unended",
    f"CREATE INDEX fersweep_trials_unended ON fersweep_trials (sweep_id, number) WHERE {UNENDED}",
)

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
    # Ids are committed in their order, since there is one writer at a time: a reader can ask for what is newer than the
    # last id that it saw.
    """CREATE TABLE fersweep_reports (
        id {counted_key},
        sweep_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        metrics TEXT NOT NULL,
        UNIQUE (sweep_id, number, epoch)
    )""",
    "CREATE INDEX fersweep_reports_news ON fersweep_reports (sweep_id, id)",
    *_ADDED_BY_3,
    *_ADDED_BY_4,
)


def schema_version(connection: Connection, dialect: Dialect) -> int | None:
    """The version of the tables; None if there are none."""
    if connection.row(dialect.find_table, ["fersweep_schema"]) is None:
        return None
    return int(connection.rows("SELECT version FROM fersweep_schema")[0]["version"])


def make_tables(connection: Connection, dialect: Dialect) -> None:
    """Create all tables."""
    _run(_TABLES, connection, dialect)
    connection.change("INSERT INTO fersweep_schema (version) VALUES (?)", [SCHEMA_VERSION])


def upgrade_tables(connection: Connection, dialect: Dialect, version: int) -> None:
    """Bring the tables of an earlier version to the present one."""
    if version < 3:
        _run(_ADDED_BY_3, connection, dialect)
    _run(_ADDED_BY_4, connection, dialect)
    for row in connection.rows("SELECT id, spec FROM fersweep_sweeps"):
        if sampler := sampler_before_4(row["spec"]):
            connection.change("UPDATE fersweep_sweeps SET sampler = ? WHERE id = ?", [sampler, row["id"]])
    connection.change("UPDATE fersweep_schema SET version = ?", [SCHEMA_VERSION])


def sampler_before_4(spec: str) -> str | None:
    """The sampler of a sweep that was recorded before version 4, so that a sweep under way keeps it.

    It was always TPE, except where the file's own code proposes the trials or its method needs no sampler: None then.
    """
    plain = json.loads(spec)
    has_own_search = "source" in (plain.get("scheduler") or {})
    return "tpe" if plain["method"] in ("bayes", "custom") and not has_own_search else None


def _run(statements: Sequence[str], connection: Connection, dialect: Dialect) -> None:
    for statement in statements:
        connection.change(statement.format(real=dialect.real, counted_key=dialect.counted_key))
