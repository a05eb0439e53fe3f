"""Making sweeps: from a file that is checked as a whole first, in a database or on a W&B server."""

import contextlib
import secrets
import string
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile, load_with_lines, parse_sweep, with_constants, with_run_cap
from fer_sweep.errors import InputError
from fer_sweep.search.embedded import create_sweep
from fer_sweep.sweeps.adding import add, add_served, new_storage
from fer_sweep.sweeps.entries import SweepEntry
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.wandb_client.account import tracking_mode

SEARCHES = ("wandb", "optuna")
"""What can propose trials: a W&B server, or the embedded search."""


def create(
    file: Path,
    *,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    search: str | None = None,
    storage: str | None = None,
    max_gap: float | None = None,
    seed: int | None = None,
    entity: str | None = None,
    project: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Sweep:
    """Make a sweep from a file, after everything in it has been checked; it comes back opened.

    Args:
        file: A sweep file in W&B's format.
        constants: Parameters to fix, by dotted name, whatever the file says of them.
        count: Replaces the file's run_cap.
        search: One of SEARCHES; None takes the W&B server if runs are tracked online and it can do what is asked.
        storage: Database URL; None for that of ``FERSWEEP_STORAGE``, or ``sweeps.db`` in fersweep's home.
        max_gap: Only trials with at most this train_val_gap count as solutions.
        seed: Seeds the embedded search.
        entity: W&B user or team, before what environment and file say.
        project: W&B project, likewise.
        note: Gets what is valid but probably not meant.

    Raises:
        SweepFileError: The file cannot be used; nothing has been made.
        LoginError: The W&B server does not know the key, or the key has no right to that entity.
        InputError: An option does not fit the file, or the server refuses it, or a database cannot be there.
    """
    if search not in (None, *SEARCHES):
        raise InputError(f"unknown search {search!r}", hint=f"--search takes {' or '.join(SEARCHES)}")
    sweep = checked(file, constants=constants, count=count, note=note)
    given = {"--storage": storage, "--max-gap": max_gap, "--seed": seed}
    embedded = next((option for option, value in given.items() if value is not None), None)
    if search is None:
        search = "wandb" if tracking_mode() == "online" and not embedded and sweep.method != "custom" else "optuna"
    if search == "wandb":
        if embedded:
            raise InputError(f"{embedded} is for search optuna; a W&B server has none", hint="add --search optuna")
        return _create_on_server(sweep, entity, project, note)
    storage = new_storage(storage, note)
    place = {name: value for name, value in (("entity", entity), ("project", project)) if value}
    if place:
        sweep = parse_sweep({**sweep.to_plain(), **place})
    entry = SweepEntry(_new_id(), search, storage, sweep.name, time.time(), max_gap)
    create_sweep(sweep, sweep_id=entry.id, storage=entry.database, max_gap=max_gap, seed=seed or 0)
    return add(entry, sweep, note)


def checked(
    file: Path,
    *,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> SweepFile:
    """Load a sweep file, fix constants and cap, and check every parameter against the training function.

    Raises:
        SweepFileError: With every problem found.
    """
    sweep, lines = load_with_lines(file)
    if constants:
        sweep = with_constants(sweep, constants)
        # A value of the command line stands in no line of the file.
        given = tuple(f"parameters.{name}" for name in constants)
        lines = {key: line for key, line in lines.items() if not key.startswith(given)}
    if count is not None:
        sweep = with_run_cap(sweep, count)
    space = Space.from_sweep(sweep, source=str(file), lines=lines)
    for problem in bind(sweep, space, source=str(file), lines=lines):
        note(f"{file}, {problem}")
    return sweep


def _create_on_server(sweep: SweepFile, entity: str | None, project: str | None, note: Callable[[str], None]) -> Sweep:
    from fer_sweep.wandb_client import sweeps as wandb_sweeps  # only here: the embedded search needs no HTTP

    wandb_sweeps.check_searchable(sweep)
    storage = new_storage(None, note)
    with contextlib.closing(wandb_sweeps.connect()) as server:
        made = wandb_sweeps.make(server, sweep, entity=entity, project=project)
    for warning in made.warnings:
        note(f"W&B: {warning}")
    return add_served(made, sweep, storage, note)


def _new_id() -> str:
    # Eight letters and digits, as W&B's are.
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
