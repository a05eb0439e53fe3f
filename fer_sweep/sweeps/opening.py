"""Opening a sweep by its id or address, and adding new ones to this home."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.errors import InputError, NothingToDo, SweepFileError
from fer_sweep.files import home, sweep_folder
from fer_sweep.store.database import check_storage, default_storage
from fer_sweep.store.sweeps import record_sweep
from fer_sweep.sweeps.embedded import EmbeddedSweep
from fer_sweep.sweeps.entries import SweepEntry, known, remember
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.served import ServedSweep
from fer_sweep.wandb_client.account import has_login, tracking_mode

if TYPE_CHECKING:
    from fer_sweep.wandb_client.sweeps import Made


def open_sweep(sweep_id: str | None = None, *, note: Callable[[str], None] = lambda text: None) -> Sweep:
    """Open a sweep by id, or the one created last; a sweep that only the W&B server has is added to this home.

    Args:
        sweep_id: An id, ENTITY/PROJECT/ID, or the address of a sweep's page; None for the last one.
        note: Called with warnings about a sweep that is added.

    Raises:
        NothingToDo: No sweep has been created here yet.
        InputError: No sweep has this id.
        LoginError: The API key has no access to it.
    """
    entries = known()
    if sweep_id is None:
        if not entries:
            raise _no_sweep()
        return open_entry(entries[-1])
    for entry in entries:
        if sweep_id in (entry.id, entry.path, entry.url):
            return open_entry(entry)
    elsewhere = ""
    if "/" in sweep_id or (has_login() and tracking_mode() == "online"):
        try:
            return _adopt(sweep_id, note)
        except InputError as error:
            if "/" in sweep_id or isinstance(error, SweepFileError):
                raise
            elsewhere = f"; on W&B: {error}"
    if not entries:
        raise InputError(
            f"no sweep {sweep_id!r} in {home()}{elsewhere}", hint="name a sweep on W&B as ENTITY/PROJECT/ID"
        )
    near = get_close_matches(sweep_id, [entry.id for entry in entries], n=1)
    known_ids = ", ".join(entry.id for entry in entries[-5:])
    raise InputError(
        f"no sweep {sweep_id!r} in {home()}{elsewhere}",
        hint=f"did you mean {near[0]}?" if near else f"latest sweeps: {known_ids}; on W&B: ENTITY/PROJECT/ID",
    )


@contextlib.contextmanager
def open_sweeps(sweep_ids: Sequence[str] | None) -> Iterator[list[Sweep]]:
    """Open several sweeps, each once, or the one searched last; they are closed at the end of the block.

    Raises:
        NothingToDo: No sweep has been created here yet.
        InputError: No sweep has one of these ids.
    """
    with contextlib.ExitStack() as stack:
        found: dict[str, Sweep] = {}
        for name in dict.fromkeys(sweep_ids or ()):
            sweep = stack.enter_context(open_sweep(name))
            found.setdefault(sweep.id, sweep)
        yield list(found.values()) or [stack.enter_context(last_searched())]


def last_searched() -> Sweep:
    """Open the sweep created last, ignoring those of ``fersweep confirm``.

    Raises:
        NothingToDo: There is none yet.
    """
    searched = [entry for entry in known() if entry.confirms is None]
    if not searched:
        raise _no_sweep()
    return open_entry(searched[-1])


def open_entry(entry: SweepEntry, *, waits: bool = True) -> Sweep:
    """Open a sweep of this home.

    Args:
        entry: The sweep.
        waits: Wait for a database server that does not answer instead of failing at once.
    """
    kind = ServedSweep if entry.search == "wandb" else EmbeddedSweep
    return kind(entry, waits=waits)


def add_served(made: "Made", sweep: SweepFile, storage: str | None, note: Callable[[str], None]) -> Sweep:
    """Add a sweep that a W&B server searches, and open it.

    Args:
        made: Its place on the server.
        sweep: Its file.
        storage: The database for its leases and reports; None for this home's.
        note: Called with warnings.
    """
    path = made.path
    sweep_folder(path.id)  # refuses an id that cannot name a folder
    entry = SweepEntry(path.id, "wandb", storage, sweep.name, time.time(), url=made.url, path=str(path))
    record_sweep(sweep, entry.id, entry.database)
    return add(entry, sweep, note)


def add(entry: SweepEntry, sweep: SweepFile, note: Callable[[str], None]) -> Sweep:
    """Add a sweep, already in its database, to this home, and open it.

    Args:
        entry: The sweep.
        sweep: Its file.
        note: Called with problems of its data sets.
    """
    remember(entry, sweep)
    opened = open_entry(entry)
    opened.data.pin(note)
    return opened


def new_storage(storage: str | None, note: Callable[[str], None]) -> str | None:
    """The database of a new sweep as its entry stores it: an absolute path, or a URL without its password."""
    storage = storage or os.environ.get("FERSWEEP_STORAGE") or None
    kept = check_storage(storage or default_storage())
    if storage is None:
        return None
    if kept != storage and not kept.startswith("sqlite:"):
        note("the password of the storage URL is not stored: set PGPASSWORD or ~/.pgpass for later commands")
    return kept


def _no_sweep() -> NothingToDo:
    return NothingToDo(f"no sweep in {home()} yet", hint="create one: fersweep create simple_cnn")


def _adopt(text: str, note: Callable[[str], None]) -> Sweep:
    """Record and open a sweep of the W&B server in use."""
    from fer_sweep.wandb_client import sweeps as wandb_sweeps  # only here: httpx and wandb take half a second to import

    with contextlib.closing(wandb_sweeps.connect()) as server:
        made, sweep = wandb_sweeps.take_up(server, text)
    wandb_sweeps.check_searchable(sweep)
    source = f"sweep {made.path}"
    for problem in bind(sweep, Space.from_sweep(sweep, source=source), source=source, lines={}):
        note(f"{source}, {problem}")
    for entry in known():
        if entry.path == str(made.path):
            return open_entry(entry)
        if entry.id == made.path.id:
            raise InputError(
                f"{home()} has another sweep with the id {entry.id}: {entry.path or 'an embedded one'}",
                hint="set FERSWEEP_HOME to another folder for this one",
            )
    return add_served(made, sweep, new_storage(None, note), note)
