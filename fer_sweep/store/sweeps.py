"""Sweeps in the database: create, read, and change their state. Needs neither optuna nor torch."""

import contextlib
import json
import re
import time

from sqlalchemy import Connection, func, insert, select, update

from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.errors import InputError
from fer_sweep.store.database import Database, Row, default_storage
from fer_sweep.store.schema import sweeps, trials
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
    # A sweep that reached its target may still have running trials, which cancelling stops.
    SweepState.FINISHED: frozenset({SweepState.CANCELLED}),
    SweepState.CANCELLED: frozenset(),
}


def extend_sweep(database: Database, sweep_id: str, sweep: SweepFile) -> None:
    """Replace a sweep's space by a larger one, and let a finished sweep run again.

    Args:
        database: Its database.
        sweep_id: Its id.
        sweep: Gives every configuration that has a trial, in the same order.

    Raises:
        InputError: There is no such sweep.
        StorageError: The database cannot be written.
    """
    with database.transaction(write=True) as connection:
        state = _state(connection, sweep_id, database.name)
        after = SweepState.RUNNING if state is SweepState.FINISHED else state
        _update(connection, sweep_id, spec=json.dumps(sweep.to_plain()), state=after)


def record_sweep(sweep: SweepFile, sweep_id: str, storage: str, *, max_gap: float | None = None, seed: int = 0) -> bool:
    """Record a sweep, in state `running`; creates the database if needed.

    Args:
        sweep: Its file.
        sweep_id: Its name in commands and folders: letters, digits, `_` and `-`.
        storage: `sqlite:///PATH` or `postgresql+psycopg://USER@HOST/DATABASE`.
        max_gap: Trials whose train_val_gap is larger count as infeasible.
        seed: Of the embedded search.

    Returns:
        False if this id exists already; that sweep stays unchanged.

    Raises:
        InputError: The id is unusable.
        StorageError: The database cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", sweep_id):
        raise InputError(f"{sweep_id!r} cannot name a sweep", hint="use letters, digits, _ and -, at most 64")
    with contextlib.closing(Database(storage, create=True)) as database, database.transaction(write=True) as connection:
        if connection.execute(select(sweeps.c.id).where(sweeps.c.id == sweep_id)).first():
            return False
        last = connection.execute(select(func.max(sweeps.c.position))).scalar()
        connection.execute(
            insert(sweeps).values(
                id=sweep_id,
                position=0 if last is None else last + 1,
                spec=json.dumps(sweep.to_plain()),
                state=SweepState.RUNNING,
                max_gap=max_gap,
                seed=seed,
                created=time.time(),
            )
        )
    return True


def load_sweep(database: Database, sweep_id: str) -> SweepFile:
    """The sweep file a sweep was created from.

    Raises:
        InputError: There is no such sweep.
    """
    with database.transaction(write=False) as connection:
        return parse_sweep(json.loads(sweep_row(connection, sweep_id, database.name)["spec"]))


def sweep_seed(database: Database, sweep_id: str) -> int:
    """The seed of a sweep's search; 0 for one that a server searches."""
    with database.transaction(write=False) as connection:
        return connection.execute(select(sweeps.c.seed).where(sweeps.c.id == sweep_id)).scalar() or 0


def sweep_state(database: Database, sweep_id: str) -> SweepState:
    """A sweep's state.

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
        is_running = (trials.c.sweep_id == sweep_id, trials.c.state == "running")
        running = connection.execute(select(trials.c.number).where(*is_running).limit(1)).first()
        legal = _MOVES[current]
        if current is SweepState.FINISHED and running is None:
            legal = frozenset()
        if wanted not in legal:
            then = f"it can become {' or '.join(sorted(legal))}" if legal else "that is final"
            raise InputError(
                f"sweep {sweep_id} is {current} and cannot become {wanted}",
                hint=f"{then}; to search on, create a new sweep from the same file",
            )
        _update(connection, sweep_id, state=wanted)


def sweep_row(connection: Connection, sweep_id: str, name: str) -> Row:
    """A sweep's row.

    Args:
        connection: An open transaction.
        sweep_id: The sweep.
        name: The database's name, for messages.

    Raises:
        InputError: There is no such sweep; the hint names the newest ones.
    """
    row = connection.execute(select(sweeps).where(sweeps.c.id == sweep_id)).mappings().first()
    if row is None:
        newest = connection.execute(select(sweeps.c.id).order_by(sweeps.c.position.desc()).limit(5)).scalars().all()
        raise InputError(
            f"no sweep {sweep_id} in {name}",
            hint=f"the newest there: {', '.join(newest)}" if newest else "create one: fersweep create FILE",
        )
    return row


def _state(connection: Connection, sweep_id: str, name: str) -> SweepState:
    return SweepState(sweep_row(connection, sweep_id, name)["state"])


def _update(connection: Connection, sweep_id: str, **values: object) -> None:
    connection.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(**values))
