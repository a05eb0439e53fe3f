"""Sweeps in the database: created, read back, and moved between states. Needs neither optuna nor torch."""

import contextlib
import json
import re
import time
from collections.abc import Sequence
from typing import TypedDict, Unpack

from fer_sweep import owners
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.errors import InputError
from fer_sweep.formatting import counted
from fer_sweep.records import SweepState, TrialRecord, TrialResult, TrialState
from fer_sweep.store.database import Database, through_restarts
from fer_sweep.store.engine import Row
from fer_sweep.store.queue import Picked, Prior
from fer_sweep.store.trials import Ledger, ledger_of

_MOVES: dict[SweepState, frozenset[SweepState]] = {
    SweepState.RUNNING: frozenset({SweepState.PAUSED, SweepState.STOPPED, SweepState.CANCELLED}),
    SweepState.PAUSED: frozenset({SweepState.RUNNING, SweepState.STOPPED, SweepState.CANCELLED}),
    SweepState.STOPPED: frozenset({SweepState.RUNNING, SweepState.CANCELLED}),
    # A sweep that reached its target may still have trials running, which cancelling ends. What lets it run again is
    # more than a state: see ``sweeps.steering``.
    SweepState.FINISHED: frozenset({SweepState.CANCELLED}),
    SweepState.CANCELLED: frozenset(),
}


class Beginning(TypedDict, total=False):
    """What an embedded search begins with, beside the sweep file."""

    max_gap: float | None
    """Trials whose train_val_gap is larger count as infeasible; for a single objective."""
    seed: int
    """The same seed and the same results give the same configurations; 0 by default."""
    sampler: str | None
    """What searches a sweep of method bayes, see ``config.samplers``; None to choose by its file."""
    budget_epochs: int | None
    """Epochs of all trials together, from which on no new trial starts."""
    until_converged: bool
    """Whether it finishes once going on is not worth it; see ``search.convergence``."""
    queue: Sequence[Picked]
    """Its first trials."""
    priors: Sequence[Prior]
    """Trials of other sweeps that it learns from."""


def record_sweep(sweep: SweepFile, sweep_id: str, storage: str, **beginning: Unpack[Beginning]) -> bool:
    """Record a sweep, in state `running`; creates the database if it does not exist.

    Returns:
        False if this id is recorded already; that sweep stays as it is.

    Raises:
        InputError: The id is not of letters, digits, `_` and `-`.
        StorageError: The database cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", sweep_id):
        raise InputError(f"{sweep_id!r} cannot name a sweep", hint="use letters, digits, _ and -, at most 64")
    queue = beginning.get("queue", ())
    with contextlib.closing(Database(storage, create=True)) as database, database.transaction(write=True) as connection:
        if connection.row("SELECT id FROM fersweep_sweeps WHERE id = ?", [sweep_id]):
            return False
        connection.change(
            "INSERT INTO fersweep_sweeps"
            " (id, position, spec, state, max_gap, seed, created, budget_epochs, steered, sampler, until_converged)"
            " VALUES (?, (SELECT COALESCE(MAX(position) + 1, 0) FROM fersweep_sweeps), ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(sweep_id, json.dumps(sweep.to_plain()), SweepState.RUNNING),
                *(beginning.get("max_gap"), beginning.get("seed", 0), time.time()),
                *(beginning.get("budget_epochs"), 0 if queue else None, beginning.get("sampler")),
                int(beginning.get("until_converged", False)),
            ],
        )
        ledger = Ledger(connection, sweep_id)
        for picked in queue:
            ledger.enqueue(picked)
        for prior in beginning.get("priors", ()):
            ledger.add_prior(prior)
    return True


def record_of(row: Row, trial_id: str) -> TrialRecord:
    """A trial's row as the record that crosses the search's seam."""
    state = TrialState(row["state"])
    result = TrialResult.model_validate(json.loads(row["result"])) if row["result"] else None
    return TrialRecord(
        trial_id=trial_id,
        state=state,
        config=json.loads(row["config"]),
        parameters=json.loads(row["parameters"]),
        metrics=result.numbers if state.has_ended and result is not None else json.loads(row["metrics"]),
        result=result,
        reason=row["reason"],
        attempt=row["attempt"],
        started_at=row["started"],
        ended_at=row["ended"],
    )


@through_restarts
def numbered_trials(database: Database, sweep_id: str) -> Sequence[TrialRecord]:
    """Every trial of an embedded sweep, oldest first; a trial's id is its number."""
    with ledger_of(database, sweep_id) as ledger:
        rows = ledger.all()
    return [record_of(row, str(row["number"])) for row in rows]


def set_sweep_state(database: Database, sweep_id: str, state: SweepState | str) -> None:
    """Pause, resume (`running`), stop or cancel a sweep; asking for the state it is in changes nothing.

    Raises:
        InputError: There is no such sweep, or it cannot go from its state to this one.
    """
    wanted = SweepState(state)
    with ledger_of(database, sweep_id, write=True) as ledger:
        current = ledger.state()
        if wanted is current:
            return
        legal = _MOVES[current]
        if current is SweepState.FINISHED and all(row["state"] != "running" for row in ledger.unended()):
            legal = frozenset()
        if wanted not in legal:
            hint = f"it can become {' or '.join(sorted(legal))}" if legal else "create a new sweep from the same file"
            if current is SweepState.FINISHED:
                hint = (
                    f"more trials: fersweep resume {sweep_id} --count +10; another space: fersweep edit FILE {sweep_id}"
                )
            raise InputError(f"sweep {sweep_id} is {current} and cannot become {wanted}", hint=hint)
        ledger.move_sweep(wanted, current)
        if wanted is SweepState.CANCELLED:
            ledger.prune_paused("paused, and the sweep was cancelled", database.clock())


def delete_sweep(database: Database, sweep_id: str) -> None:
    """Delete a sweep with its trials and reports; a repetition changes nothing.

    Raises:
        InputError: An agent is training one of its trials.
    """
    with database.transaction(write=True) as connection:
        refuse_live(Ledger(connection, sweep_id).live_owners(database.clock()), sweep_id)
        for table in ("queue", "priors", "reports", "trials"):  # the sweep last: trials refer to it
            connection.change(f"DELETE FROM fersweep_{table} WHERE sweep_id = ?", [sweep_id])
        connection.change("DELETE FROM fersweep_sweeps WHERE id = ?", [sweep_id])


def refuse_live(agents: Sequence[str], sweep_id: str) -> None:
    """Raise ``InputError`` where agents work on a sweep."""
    if agents:
        where = ", ".join(sorted({owners.host_of(agent) for agent in agents}))
        raise InputError(
            f"sweep {sweep_id} cannot be deleted: {counted(len(agents), 'agent')} on {where} "
            f"{'work' if len(agents) > 1 else 'works'} on it",
            hint=f"fersweep cancel {sweep_id} ends its trials; then run the same command again",
        )
