"""Opening sweeps by id or address, and creating them from files, in a database or on a W&B server."""

import contextlib
import os
import secrets
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_sweep.config.binding import bind
from fer_sweep.config.samplers import Sampler
from fer_sweep.config.sweep_file import SweepFile, as_written, load_sweep_file, parse_sweep, with_constants
from fer_sweep.data.store import image_size
from fer_sweep.errors import InputError, ServerError, SweepFileError
from fer_sweep.files import home, sweep_folder
from fer_sweep.search.embedded import create_sweep
from fer_sweep.shipped import resolve
from fer_sweep.store.database import check_storage, default_storage
from fer_sweep.store.sweeps import record_sweep
from fer_sweep.sweeps.data import check_prepared
from fer_sweep.sweeps.embedded import EmbeddedSweep
from fer_sweep.sweeps.entries import (
    SweepEntry,
    find_entry,
    known,
    no_sweeps,
    refuse_sweep_file,
    remember,
    scan,
    unknown_sweep,
    usable_name,
)
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.served import ServedSweep
from fer_sweep.sweeps.warm_start import warm_start
from fer_sweep.wandb_client.account import has_login, tracking_mode

if TYPE_CHECKING:
    from fer_sweep.wandb_client.sweeps import Made

SEARCHES = ("wandb", "optuna")
"""What proposes trials: a W&B server, or the embedded search."""


def open_sweep(sweep: str | None = None, *, note: Callable[[str], None] = lambda text: None) -> Sweep:
    """Open a sweep, or the one searched last; one that only the W&B server has is added to this home.

    Args:
        sweep: What ``find_entry`` finds; or on W&B an id, ENTITY/PROJECT/ID, or the address of a sweep's page. None for
            the last one.
        note: Called with warnings about a sweep that is added.

    Raises:
        NothingToDo: No sweep has been created here yet.
        InputError: No sweep is meant by this, or several are.
        LoginError: The API key has no access to it.
    """
    if sweep is None:
        return last_searched()
    if (entry := find_entry(sweep)) is not None:
        return open_entry(entry)
    refuse_sweep_file(sweep)
    elsewhere = ""
    if "/" in sweep or (has_login() and tracking_mode() == "online"):
        try:
            return _adopt(sweep, note)
        except InputError as error:
            if "/" in sweep or isinstance(error, SweepFileError):
                raise
            elsewhere = f"; on W&B: {error}"
    raise unknown_sweep(sweep, elsewhere)


@contextlib.contextmanager
def open_sweeps(sweep_ids: Sequence[str] | None) -> Iterator[list[Sweep]]:
    """Open several sweeps, each once, or the one searched last; they are closed at the end of the block."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Sweep] = {}
        for name in dict.fromkeys(sweep_ids or ()):
            sweep = stack.enter_context(open_sweep(name))
            found.setdefault(sweep.id, sweep)
        yield list(found.values()) or [stack.enter_context(last_searched())]


def last_searched() -> Sweep:
    """Open the sweep created last, or one of W&B that was added later and has been trained here.

    Those of ``fersweep confirm`` count only where there are no others.

    Raises:
        NothingToDo: There is none.
        StorageError: The sweep.json of what may be the last one cannot be read.
    """
    entries, unreadable = scan()
    candidates = [entry for entry in entries if entry.confirms is None] or entries
    last = next((entry for entry in reversed(candidates) if _is_searched(entry)), next(reversed(candidates), None))
    for name, error in unreadable.items():
        if last is None or (home() / "sweeps" / name / "sweep.json").lstat().st_mtime > last.created:
            raise error
    if last is None:
        raise no_sweeps()
    return open_entry(last)


def _is_searched(entry: SweepEntry) -> bool:
    if not entry.added:
        return True
    with open_entry(entry) as sweep, sweep.ledger() as ledger:
        return ledger.count() > 0


def open_entry(entry: SweepEntry) -> Sweep:
    """Open a sweep of this home."""
    return ServedSweep(entry) if entry.search == "wandb" else EmbeddedSweep(entry)


def create(
    file: Path | Mapping[str, Any],
    *,
    name: str | None = None,
    data: str | None = None,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    search: str | None = None,
    sampler: Sampler | None = None,
    storage: str | None = None,
    max_gap: float | None = None,
    seed: int | None = None,
    budget_epochs: int | None = None,
    until_converged: bool = False,
    start_from: Sequence[str] | None = None,
    entity: str | None = None,
    project: str | None = None,
    to_train: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Sweep:
    """Check a sweep file, or a sweep given as a dictionary, create the sweep and open it.

    The arguments are those of ``fer_sweep.create``; ``name``, ``constants`` and ``data`` override the file. A sweep
    ``to_train`` on this host at once is created only if that is possible.

    Raises:
        SweepFileError: The file is invalid; no sweep is created.
        DataError: A sweep to train needs a data set that is not prepared here; none is created.
        LoginError: The API key is invalid, or has no access to the entity.
        InputError: An option does not fit the file, or the server or the database refuses the sweep.
    """
    if search not in (None, *SEARCHES):
        raise InputError(f"unknown search {search!r}", hint=f"use {' or '.join(SEARCHES)}")
    constants = {**(constants or {}), **({} if data is None else {"data": data})}
    sweep = checked(file, name=name, constants=constants, count=count, note=note)
    given: dict[str, object] = {"sampler": sampler, "storage": storage, "max_gap": max_gap, "seed": seed}
    given |= {"budget_epochs": budget_epochs, "until_converged": until_converged or None}
    given |= {"an earlier sweep to learn from": start_from or None}
    embedded = next((what for what, value in given.items() if value is not None), None)
    if search is None:
        search = "wandb" if tracking_mode() == "online" and not embedded and sweep.method != "custom" else "optuna"
    if to_train:
        _check_trainable(sweep, search)
    if search == "wandb":
        if embedded:
            raise InputError(f"{embedded} needs the embedded search", hint="use the search optuna")
        return _create_on_server(sweep, entity, project, note)
    storage = _new_storage(storage, note)
    place = {name: value for name, value in (("entity", entity), ("project", project)) if value}
    if place:
        sweep = parse_sweep({**sweep.to_plain(), **place})
    # Eight letters and digits, as W&B's ids are.
    sweep_id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    entry = SweepEntry(sweep_id, search, storage, sweep.name, time.time(), max_gap)
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_sweep(name)) for name in dict.fromkeys(start_from or ())]
        start = warm_start(sweep, sources, max_gap=max_gap, sampler=sampler)
    sweep = create_sweep(
        sweep,
        sweep_id=entry.id,
        storage=entry.database,
        max_gap=max_gap,
        seed=seed or 0,
        sampler=sampler,
        budget_epochs=budget_epochs,
        until_converged=until_converged,
        queue=start.queue,
        priors=start.priors,
    )
    if sampler == "freeze_thaw" and sweep.early_terminate is not None:
        note("early_terminate of the file is not used: freeze-thaw pauses trials, and stops none")
    if start_from:
        note(f"sweep {entry.id} {start}")
    return _add(entry, sweep, note)


def _check_trainable(sweep: SweepFile, search: str) -> None:
    """Raise for what would end an agent of a new sweep on this host at its start."""
    check_prepared(sweep)
    mode = tracking_mode()
    if search == "wandb" and mode != "online":
        raise InputError(
            f"the search on a W&B server needs the runs of its trials, but runs are {mode}",
            hint="unset WANDB_MODE or run `wandb online`; or use the search optuna",
        )
    if search == "optuna" and mode == "online":
        from fer_sweep.wandb_client import sweeps as wandb_sweeps  # only here: the embedded search needs no HTTP

        with contextlib.suppress(ServerError), contextlib.closing(wandb_sweeps.connect()) as server:
            server.default_entity(tries=1)  # refuses a wrong key; without an answer, runs are tracked offline


def checked(
    file: Path | Mapping[str, Any],
    *,
    name: str | None = None,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> SweepFile:
    """Load a sweep file, apply name, constants and cap, and check every parameter against the training function.

    Raises:
        SweepFileError: With every problem found.
    """
    if isinstance(file, Mapping):
        source, lines = "sweep", dict[str, int]()
        sweep = parse_sweep(as_written(file))
    else:
        source = str(file := resolve("sweeps", file))
        sweep, lines = load_sweep_file(file)
    if name is not None:
        sweep = parse_sweep({**sweep.to_plain(), "name": usable_name(name)})
    if constants:
        sweep = with_constants(sweep, as_written(constants))
        # A value of the command line has no line in the file.
        given = tuple(f"parameters.{name}" for name in constants)
        lines = {key: line for key, line in lines.items() if not key.startswith(given)}
    if count is not None:
        sweep = parse_sweep({**sweep.to_plain(), "run_cap": count})
    for problem in bind(sweep, source=source, lines=lines, image_size=image_size):
        note(f"{source}, {problem}")
    return sweep


def _create_on_server(sweep: SweepFile, entity: str | None, project: str | None, note: Callable[[str], None]) -> Sweep:
    from fer_sweep.wandb_client import sweeps as wandb_sweeps  # only here: the embedded search needs no HTTP

    wandb_sweeps.check_searchable(sweep)
    storage = _new_storage(None, note)
    with contextlib.closing(wandb_sweeps.connect()) as server:
        made = wandb_sweeps.make(server, sweep, entity=entity, project=project)
    for warning in made.warnings:
        note(f"W&B: {warning}")
    return _add_served(made, sweep, storage, note)


def _adopt(text: str, note: Callable[[str], None]) -> Sweep:
    """Record and open a sweep of the W&B server in use."""
    from fer_sweep.wandb_client import sweeps as wandb_sweeps  # only here: httpx and wandb take half a second to import

    with contextlib.closing(wandb_sweeps.connect()) as server:
        made, sweep = wandb_sweeps.adopt(server, text)
    wandb_sweeps.check_searchable(sweep)
    source = f"sweep {made.path}"
    for problem in bind(sweep, source=source, image_size=image_size):
        note(f"{source}, {problem}")
    for entry in known():
        if entry.path == str(made.path):
            return open_entry(entry)
        if entry.id == made.path.id:
            raise InputError(
                f"{home()} has another sweep with the id {entry.id}: {entry.path or 'an embedded one'}",
                hint="set FERSWEEP_HOME to another folder for this one",
            )
    return _add_served(made, sweep, _new_storage(None, note), note, added=True)


def _add(entry: SweepEntry, sweep: SweepFile, note: Callable[[str], None]) -> Sweep:
    """Add a sweep, already in its database, to this home, and open it."""
    remember(entry, sweep)
    opened = open_entry(entry)
    opened.file = sweep  # so that it need not be read back
    opened.data.pin(note)
    return opened


def _add_served(
    made: "Made", sweep: SweepFile, storage: str | None, note: Callable[[str], None], *, added: bool = False
) -> Sweep:
    """Add a sweep that a W&B server searches, and open it; its leases and reports are in the database."""
    path = made.path
    sweep_folder(path.id)  # refuses an id that cannot name a folder
    entry = SweepEntry(path.id, "wandb", storage, sweep.name, time.time(), url=made.url, path=str(path), added=added)
    record_sweep(sweep, entry.id, entry.database)
    return _add(entry, sweep, note)


def _new_storage(storage: str | None, note: Callable[[str], None]) -> str | None:
    """The database of a new sweep as its entry stores it: an absolute path, or a URL without its password."""
    storage = storage or os.environ.get("FERSWEEP_STORAGE") or None
    kept = check_storage(storage or default_storage())
    if storage is None:
        return None
    if kept != storage and not kept.startswith("sqlite:"):
        note("the password of the storage URL is not stored: set PGPASSWORD or ~/.pgpass for later commands")
    return kept
