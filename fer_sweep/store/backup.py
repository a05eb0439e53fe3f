"""A SQLite database as a whole: copied while agents write to it, looked at, and taken up on another machine."""

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
    in_hand: bool
    """Whether an agent works on it that may still be there."""

    def is_ahead_of(self, other: "Standing | None") -> bool:
        """Whether this one holds something that the other one lacks."""
        if other is None:
            return True
        if not self.state.has_ended:
            return (self.attempt, self.epochs) > (other.attempt, other.epochs) and not other.state.has_ended
        return other.state is not self.state


def snapshot(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment into a file of its own; whoever writes to it is not held up.

    Raises:
        StorageError: It cannot be read, or the copy not be written.
    """
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=LOCK_TIMEOUT_S)
            ) as from_,
            contextlib.closing(sqlite3.connect(target)) as to,
        ):
            from_.backup(to)
            to.execute("PRAGMA journal_mode=DELETE")  # one file, which no reader need write beside
    except sqlite3.Error as error:
        raise StorageError(
            f"{source} cannot be copied to {target}: {error}", hint="make room, or check the disk"
        ) from error


def take_up(path: Path) -> None:
    """See that a copy is whole, and make it a database that agents share.

    Raises:
        StorageError: It is damaged, or no database.
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
    """Every trial of a database by sweep and number; empty sweeps too.

    Raises:
        StorageError: It cannot be read.
    """
    with contextlib.closing(Database(_url(path))) as database, database.transaction(write=False) as connection:
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
            held = state is TrialState.RUNNING and row["lease_until"] > now and not owners.is_dead(row["owner"])
            found[row["sweep_id"]][row["number"]] = Standing(row["number"], state, row["attempt"], row["epochs"], held)
    return found


def release(path: Path, history_of: Callable[[str, str], Sequence[Mapping[str, float]]]) -> int:
    """Give up every lease in a copied database, since the agents that held them are not those of this machine.

    Epochs that a trial wrote down after the copy was made are recorded, so that its history has no gap.

    Args:
        path: The database.
        history_of: What a trial's history.jsonl holds, by sweep and the name of its folder.

    Returns:
        How many trials go on where they were.
    """
    going_on = 0
    with contextlib.closing(Database(_url(path))) as database, database.transaction(write=True) as connection:
        sweeps = [row["id"] for row in connection.rows("SELECT id FROM fersweep_sweeps")]
        for sweep_id in sweeps:
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
