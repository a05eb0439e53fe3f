"""Creating sweeps from files, in a database or on a W&B server."""

import contextlib
import secrets
import string
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_sweep.config.binding import bind
from fer_sweep.config.sweep_file import SweepFile, load_sweep_file, parse_sweep, with_constants
from fer_sweep.errors import InputError
from fer_sweep.search.embedded import create_sweep
from fer_sweep.shipped import resolve
from fer_sweep.sweeps.data import image_size
from fer_sweep.sweeps.entries import SweepEntry
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.opening import add, add_served, new_storage
from fer_sweep.wandb_client.account import tracking_mode

SEARCHES = ("wandb", "optuna")
"""What proposes trials: a W&B server, or the embedded search."""


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
    """Check a sweep file, create the sweep and open it.

    Args:
        file: A sweep file in W&B's format.
        constants: Parameters to fix, by dotted name; they override the file.
        count: Replaces the file's run_cap.
        search: One of SEARCHES; None for the W&B server if runs are tracked online and it supports the sweep.
        storage: Database URL; None for that of ``FERSWEEP_STORAGE``, or ``sweeps.db`` in fersweep's home.
        max_gap: Largest train_val_gap the winner may have.
        seed: Seed of the embedded search.
        entity: W&B user or team; overrides environment and file.
        project: W&B project; overrides environment and file.
        note: Called with warnings.

    Raises:
        SweepFileError: The file is invalid; no sweep is created.
        LoginError: The API key is invalid, or has no access to the entity.
        InputError: An option does not fit the file, or the server or the database refuses the sweep.
    """
    if search not in (None, *SEARCHES):
        raise InputError(f"unknown search {search!r}", hint=f"use {' or '.join(SEARCHES)}")
    sweep = checked(file, constants=constants, count=count, note=note)
    given = {"--storage": storage, "--max-gap": max_gap, "--seed": seed}
    embedded = next((option for option, value in given.items() if value is not None), None)
    if search is None:
        search = "wandb" if tracking_mode() == "online" and not embedded and sweep.method != "custom" else "optuna"
    if search == "wandb":
        if embedded:
            raise InputError(f"{embedded} needs the embedded search", hint="add --search optuna")
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
    """Load a sweep file, apply constants and cap, and check every parameter against the training function.

    Raises:
        SweepFileError: With every problem found.
    """
    file = resolve("sweeps", file)
    sweep, lines = load_sweep_file(file)
    if constants:
        sweep = with_constants(sweep, constants)
        # A value of the command line has no line in the file.
        given = tuple(f"parameters.{name}" for name in constants)
        lines = {key: line for key, line in lines.items() if not key.startswith(given)}
    if count is not None:
        sweep = parse_sweep({**sweep.to_plain(), "run_cap": count})
    for problem in bind(sweep, source=str(file), lines=lines, image_size=image_size):
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
