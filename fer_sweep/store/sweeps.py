"""Sweeps at rest: created, listed, read back, and moved between states. Needs neither optuna nor torch."""

import contextlib
import json
import re
import time

from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.errors import InputError
from fer_sweep.store.database import Connection, Database, default_storage
from fer_sweep.store.trials import SweepState

__all__ = [
    "SweepState",
    "default_storage",
    "extend_sweep",
    "load_sweep",
    "record_sweep",
    "set_sweep_state",
    "sweep_state",
]


_MOVES: dict[SweepState, frozenset[SweepState]] = {
    SweepState.RUNNING: frozenset({SweepState.PAUSED, SweepState.STOPPED, SweepState.CANCELLED}),
    SweepState.PAUSED: frozenset({SweepState.RUNNING, SweepState.STOPPED, SweepState.CANCELLED}),
    SweepState.STOPPED: frozenset({SweepState.RUNNING, SweepState.CANCELLED}),
    # A sweep that reached its target may still have trials running, which cancelling ends.
    SweepState.FINISHED: frozenset({SweepState.CANCELLED}),
    SweepState.CANCELLED: frozenset(),
}


def extend_sweep(database: Database, sweep_id: str, sweep: SweepFile) -> None:
    """Replace a sweep's space by a larger one; a finished sweep runs again.

    Args:
        database: Where it is.
        sweep_id: Its id.
        sweep: Gives every configuration that was handed out already, and in the same order.

    Raises:
        InputError: There is no such sweep.
        StorageError: The database cannot be written.
    """
    with database.transaction(write=True) as connection:
        state = _state(connection, sweep_id, database.name)
        goes_on = SweepState.RUNNING if state is SweepState.FINISHED else state
        connection.change(
            "UPDATE fersweep_sweeps SET spec = ?, state = ? WHERE id = ?",
            [json.dumps(sweep.to_plain()), goes_on, sweep_id],
        )


def record_sweep(sweep: SweepFile, sweep_id: str, storage: str, *, max_gap: float | None = None, seed: int = 0) -> bool:
    """Record a sweep, in state `running`; makes the database where there is none.

    Args:
        sweep: Its file.
        sweep_id: Its name in commands and folders: letters, digits, `_` and `-`.
        storage: `sqlite:///PATH` or `postgresql+psycopg://USER@HOST/DATABASE`.
        max_gap: Trials whose train_val_gap is larger count as infeasible.
        seed: Of the embedded search.

    Returns:
        False if this id is recorded already; that sweep stays as it is.

    Raises:
        InputError: The id is unusable.
        StorageError: The database cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", sweep_id):
        raise InputError(f"{sweep_id!r} cannot name a sweep", hint="use letters, digits, _ and -, at most 64")
    with contextlib.closing(Database(storage, create=True)) as database, database.transaction(write=True) as connection:
        if connection.row("SELECT id FROM fersweep_sweeps WHERE id = ?", [sweep_id]):
            return False
        last = connection.row("SELECT MAX(position) AS position FROM fersweep_sweeps")
        position = 0 if last is None or last["position"] is None else last["position"] + 1
        connection.change(
            "INSERT INTO fersweep_sweeps (id, position, spec, state, max_gap, seed, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [sweep_id, position, json.dumps(sweep.to_plain()), SweepState.RUNNING, max_gap, seed, time.time()],
        )
    return True


def load_sweep(database: Database, sweep_id: str) -> SweepFile:
    """The sweep file a sweep was created from.

    Raises:
        InputError: There is no such sweep.
    """
    with database.transaction(write=False) as connection:
        row = connection.row("SELECT spec FROM fersweep_sweeps WHERE id = ?", [sweep_id])
        if row is None:
            raise no_such_sweep(connection, sweep_id, database.name)
    return parse_sweep(json.loads(row["spec"]))


def sweep_seed(database: Database, sweep_id: str) -> int:
    """The seed of a sweep's search; 0 for one that a server searches."""
    with database.transaction(write=False) as connection:
        row = connection.row("SELECT seed FROM fersweep_sweeps WHERE id = ?", [sweep_id])
    return row["seed"] if row else 0


def sweep_state(database: Database, sweep_id: str) -> SweepState:
    """Where a sweep stands.

    Raises:
        InputError: There is no such sweep.
    """
    with database.transaction(write=False) as connection:
        return _state(connection, sweep_id, database.name)


def set_sweep_state(database: Database, sweep_id: str, state: SweepState | str) -> None:
    """Pause, resume (`running`), stop or cancel a sweep; asking for the state it is in changes nothing.

    Raises:
        InputError: There is no such sweep, or it cannot go from its state to this one.
    """
    wanted = SweepState(state)
    with database.transaction(write=True) as connection:
        current = _state(connection, sweep_id, database.name)
        if wanted == current:
            return
        running = connection.row("SELECT 1 FROM fersweep_trials WHERE sweep_id = ? AND state = 'running'", [sweep_id])
        legal = _MOVES[current]
        if current is SweepState.FINISHED and running is None:
            legal = frozenset()
        if wanted not in legal:
            then = f"it can become {' or '.join(sorted(legal))}" if legal else "that is final"
            raise InputError(
                f"sweep {sweep_id} is {current} and cannot become {wanted}",
                hint=f"{then}; to search on, create a new sweep from the same file",
            )
        connection.change("UPDATE fersweep_sweeps SET state = ? WHERE id = ?", [wanted, sweep_id])


def no_such_sweep(connection: Connection, sweep_id: str, name: str) -> InputError:
    """The error for an unknown id, naming the ids there are."""
    rows = connection.rows("SELECT id FROM fersweep_sweeps ORDER BY position DESC LIMIT 5")
    known = ", ".join(row["id"] for row in rows)
    return InputError(
        f"no sweep {sweep_id} in {name}",
        hint=f"the newest there: {known}" if known else "create one: fersweep create FILE",
    )


def _state(connection: Connection, sweep_id: str, name: str) -> SweepState:
    row = connection.row("SELECT state FROM fersweep_sweeps WHERE id = ?", [sweep_id])
    if row is None:
        raise no_such_sweep(connection, sweep_id, name)
    return SweepState(row["state"])
