"""A whole SQLite database: copied while agents write to it, compared, and restored on another machine."""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_sweep import owners
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialState
from fer_sweep.store import sqlite
from fer_sweep.store.database import Database
from fer_sweep.store.engine import LOCK_TIMEOUT_S
from fer_sweep.store.trials import Ledger


@dataclass(frozen=True)
class Standing:
    """How far one trial has come in a database."""

    number: int
    state: TrialState
    attempt: int
    epochs: int
    """Reported so far."""
    is_leased: bool
    """Whether an agent that may be alive runs it."""

    def is_ahead_of(self, other: "Standing | None") -> bool:
        """Whether this one has something that the other one lacks."""
        if other is None:
            return True
        if not self.state.has_ended:
            return (self.attempt, self.epochs) > (other.attempt, other.epochs) and not other.state.has_ended
        return other.state is not self.state


def snapshot(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment into a new file, without blocking its writers."""
    reading = f"{source.as_uri()}?mode=ro"
    try:
        with (
            contextlib.closing(sqlite3.connect(reading, uri=True, timeout=LOCK_TIMEOUT_S)) as original,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, and readers write none beside it
    except sqlite3.Error as error:
        raise StorageError(
            f"{source} cannot be copied to {target}: {error}", hint="make room, or check the disk"
        ) from error


def open_copy(path: Path) -> None:
    """Check that a copy is whole, and make it a database that agents share; StorageError if it is damaged."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as raw:
            (found,) = raw.execute("PRAGMA quick_check").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            raw.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise StorageError(
            f"{path.name} of the mirror is damaged: {error}",
            hint="if the drive keeps older versions of its files, restore one of them",
        ) from error


def standings(path: Path) -> Mapping[str, Mapping[int, Standing]]:
    """Every trial of a database by sweep and number; includes sweeps without trials."""
    with _opened(path) as database, database.transaction(write=False) as connection:
        found: dict[str, dict[int, Standing]] = {
            row["id"]: {} for row in connection.rows("SELECT id FROM fersweep_sweeps")
        }
        rows = connection.rows(
            "SELECT sweep_id, number, state, attempt, owner, lease_until, (SELECT COUNT(*) FROM fersweep_reports AS r"
            " WHERE r.sweep_id = t.sweep_id AND r.number = t.number) AS epochs FROM fersweep_trials AS t"
        )
        now = database.clock()
        for row in rows:
            state = TrialState(row["state"])
            leased = state is TrialState.RUNNING and row["lease_until"] > now and not owners.is_dead(row["owner"])
            standing = Standing(row["number"], state, row["attempt"], row["epochs"], leased)
            found[row["sweep_id"]][standing.number] = standing
    return found


def release(path: Path, history_of: Callable[[str, str], Sequence[Mapping[str, float]]]) -> int:
    """Release every lease in a copied database, whose owners are agents of another machine.

    Epochs that a trial wrote after the copy was made are recorded, so that its history has no gap.

    Args:
        path: The database.
        history_of: The content of a trial's history.jsonl, by sweep and the name of its folder.

    Returns:
        The number of trials that can be resumed.
    """
    released = 0
    with _opened(path) as database, database.transaction(write=True) as connection:
        for sweep_id in [row["id"] for row in connection.rows("SELECT id FROM fersweep_sweeps")]:
            ledger = Ledger(connection, sweep_id)
            for row in ledger.unended():
                released += 1
                number = row["number"]
                ledger.renew(number, until=0.0)
                known = max((int(metrics["epoch"]) for metrics in ledger.reports_of(number)), default=0)
                for metrics in history_of(sweep_id, str(number)) or history_of(sweep_id, row["identity"]):
                    if metrics["epoch"] > known:
                        ledger.record_epoch(number, int(metrics["epoch"]), metrics, lease_until=0.0)
    return released


def _opened(path: Path) -> contextlib.closing[Database]:
    return contextlib.closing(Database(f"{sqlite.PREFIX}{path}"))
