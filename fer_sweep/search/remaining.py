"""How much of a sweep is left to do: for whoever starts agents, and whoever shows how far they are."""

import contextlib
import json
from dataclasses import dataclass

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.search.database import Database
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.leases import Leases, lease_seconds
from fer_sweep.search.ledger import SweepState
from fer_sweep.search.storage import no_such_sweep


@dataclass(frozen=True)
class Remaining:
    """The trials of a sweep that have not ended."""

    free: int | None
    """Those that an agent could have now: to be begun, or to be gone on with. None where nobody knows how many."""
    in_hand: int = 0
    """Those that some agent has, or had less than a lease ago."""


def planned_trials(sweep: SweepFile, space: Space) -> int | None:
    """How many trials a sweep has at most: its cap, or all configurations there are; None if there is no end."""
    whole = space.grid_size() if sweep.method == "grid" else space.size()
    return min((size for size in (sweep.run_cap, whole) if size is not None), default=None)


def remaining(entry: SweepEntry) -> Remaining:
    """What is left of a sweep at this moment. Waits for no server.

    Raises:
        InputError: The database has it no more.
        StorageError: Its database does not answer.
    """
    if entry.search == "wandb":  # the server does not say; its agents are told when there are no more
        return Remaining(None)
    with contextlib.closing(Database(entry.database, end_waiting=lambda: True)) as database:
        with database.transaction(write=False) as connection:
            row = connection.row("SELECT spec FROM fersweep_sweeps WHERE id = ?", [entry.id])
            if row is None:
                raise no_such_sweep(connection, entry.id, database.name)
        sweep = parse_sweep(json.loads(row["spec"]))
        planned = planned_trials(sweep, Space.from_sweep(sweep))
        leases = Leases(database, entry.id, owner="nobody", lease_s=lease_seconds(), clock=None)
        with leases.ledger(write=False) as ledger:
            is_open = ledger.state() in (SweepState.RUNNING, SweepState.PAUSED)
            unended, given_back = len(ledger.unended()), sum(1 for _ in leases.free(ledger))
            started = ledger.count()
    if not is_open:
        return Remaining(0, unended - given_back)
    free = None if planned is None else max(0, planned - started) + given_back
    return Remaining(free, unended - given_back)
