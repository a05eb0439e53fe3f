"""Adding a sweep to this home, and opening what this home has."""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.files import sweep_folder
from fer_sweep.store.database import check_storage, default_storage, recorded
from fer_sweep.store.sweeps import record_sweep
from fer_sweep.sweeps.embedded import EmbeddedSweep
from fer_sweep.sweeps.entries import SweepEntry, remember
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.served import ServedSweep

if TYPE_CHECKING:
    from fer_sweep.wandb_client.sweeps import Made


def open_entry(entry: SweepEntry, *, waits: bool = True) -> Sweep:
    """Open a sweep of this home.

    Args:
        entry: The sweep.
        waits: Wait for a database server that does not answer; otherwise that is an error at once.
    """
    kind = ServedSweep if entry.search == "wandb" else EmbeddedSweep
    return kind(entry, waits=waits)


def add_served(made: "Made", sweep: SweepFile, storage: str | None, note: Callable[[str], None]) -> Sweep:
    """Record a sweep that a W&B server searches; it comes back opened.

    Args:
        made: Where it is on the server.
        sweep: Its file.
        storage: The database for its leases and reports; None for this home's.
        note: Gets what is valid but probably not meant.
    """
    path = made.path
    sweep_folder(path.id)  # an id of a server's that cannot name a folder is refused before anything is recorded
    entry = SweepEntry(path.id, "wandb", storage, sweep.name, time.time(), url=made.url, path=str(path))
    record_sweep(sweep, entry.id, entry.database)
    return add(entry, sweep, note)


def add(entry: SweepEntry, sweep: SweepFile, note: Callable[[str], None]) -> Sweep:
    """Add a sweep that its database has to this home, and open it.

    Args:
        entry: The sweep.
        sweep: Its file.
        note: Gets what could not be done yet about its data.
    """
    remember(entry, sweep)
    opened = open_entry(entry)
    opened.data.pin(note)
    return opened


def new_storage(storage: str | None, note: Callable[[str], None]) -> str | None:
    """The database of a sweep to be made, as its entry holds it: an absolute path, or a URL without its password."""
    storage = storage or os.environ.get("FERSWEEP_STORAGE") or None
    check_storage(storage or default_storage())
    if storage is None:
        return None
    kept = recorded(storage)
    if kept != storage and not kept.startswith("sqlite:"):
        note("the password in the storage's URL is written down nowhere: later commands want PGPASSWORD or ~/.pgpass")
    return kept
