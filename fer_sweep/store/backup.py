"""Copies of a SQLite database: made while agents write to it, compared, and prepared for another machine."""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from fer_sweep import owners
from fer_sweep.errors import StorageError
from fer_sweep.records import TrialState
from fer_sweep.store import sqlite
from fer_sweep.store.database import Database
from fer_sweep.store.engine import LOCK_TIMEOUT_S
from fer_sweep.store.schema import reports, sweeps, trials
from fer_sweep.store.trials import Ledger

_OPEN = (TrialState.RUNNING, TrialState.PREEMPTED)


@dataclass(frozen=True)
class Standing:
    """The progress of one trial in a database."""

    number: int
    state: TrialState
    attempt: int
    epochs: int
    """The number of epochs reported."""
    in_hand: bool
    """Whether an agent that may still be alive holds its lease."""

    def is_ahead_of(self, other: "Standing | None") -> bool:
        """Whether this one has progress that the other one lacks."""
        if other is None:
            return True
        if self.state in _OPEN:
            return (self.attempt, self.epochs) > (other.attempt, other.epochs) and other.state in _OPEN
        return other.state is not self.state


def snapshot(source: Path, target: Path) -> None:
    """Copy a database as of one moment, without blocking its writers.

    Raises:
        StorageError: It cannot be read, or the copy cannot be written.
    """
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=LOCK_TIMEOUT_S)
            ) as from_,
            contextlib.closing(sqlite3.connect(target)) as to,
        ):
            from_.backup(to)
            to.execute("PRAGMA journal_mode=DELETE")  # a single file that can be read where nothing can be written
    except sqlite3.Error as error:
        raise StorageError(
            f"{source} cannot be copied to {target}: {error}", hint="make room, or check the disk"
        ) from error


def take_up(path: Path) -> None:
    """Check that a copy is intact, and switch it to WAL for use by agents.

    Raises:
        StorageError: It is damaged, or not a database.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as raw:
            (found,) = raw.execute("PRAGMA quick_check").fetchone()
            if found != "ok":
                raise StorageError(f"{path.name} of the mirror is damaged: {found}", hint=_OLDER)
            raw.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise StorageError(f"{path.name} of the mirror is damaged: {error}", hint=_OLDER) from error


_OLDER = "if the drive keeps older versions of its files, restore one of them"


def standings(path: Path) -> Mapping[str, Mapping[int, Standing]]:
    """The progress of every trial by sweep and number; sweeps without trials are included.

    Raises:
        StorageError: It cannot be read.
    """
    with contextlib.closing(Database(_url(path))) as database, database.transaction(write=False) as connection:
        found: dict[str, dict[int, Standing]] = {
            sweep_id: {} for sweep_id in connection.execute(select(sweeps.c.id)).scalars()
        }
        is_of_trial = (reports.c.sweep_id == trials.c.sweep_id, reports.c.number == trials.c.number)
        epochs = select(func.count()).select_from(reports).where(*is_of_trial).scalar_subquery()
        rows = connection.execute(select(trials, epochs.label("epochs"))).mappings().all()
        now = database.clock()
        for row in rows:
            state = TrialState(row["state"])
            held = state is TrialState.RUNNING and row["lease_until"] > now and not owners.is_dead(row["owner"])
            found[row["sweep_id"]][row["number"]] = Standing(row["number"], state, row["attempt"], row["epochs"], held)
    return found


def release(path: Path, history_of: Callable[[str, str], Sequence[Mapping[str, float]]]) -> int:
    """Release every lease in a copied database, since their owners were agents of another machine.

    Epochs that a trial wrote after the copy was made are recorded, so that its history has no gap.

    Args:
        path: The database.
        history_of: Gives the rows of a trial's history.jsonl, by sweep and the name of its folder.

    Returns:
        How many trials will be resumed.
    """
    going_on = 0
    with contextlib.closing(Database(_url(path))) as database, database.transaction(write=True) as connection:
        for sweep_id in connection.execute(select(sweeps.c.id)).scalars().all():
            ledger = Ledger(connection, sweep_id)
            for row in ledger.unended():
                going_on += 1
                number = row["number"]
                ledger.renew(number, until=0.0)
                known = max((int(metrics["epoch"]) for metrics in ledger.reports_of(number)), default=0)
                for metrics in history_of(sweep_id, str(number)) or history_of(sweep_id, row["identity"]):
                    if metrics["epoch"] > known:
                        ledger.record_epoch(number, int(metrics["epoch"]), metrics)
    return going_on


def _url(path: Path) -> str:
    return f"{sqlite.PREFIX}{path}"
