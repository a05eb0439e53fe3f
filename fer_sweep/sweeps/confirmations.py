"""The sweeps of ``fersweep confirm``, which train one configuration with further seeds."""

import time
from collections.abc import Collection
from typing import Any

from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.records import TrialRecord
from fer_sweep.store.sweeps import extend_sweep, record_sweep
from fer_sweep.sweeps.entries import SweepEntry, known, remember
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.opening import open_entry, open_sweep

FIRST_SEED = 1000
"""The first further seed, far from those used in searches, so that no measurement of the search counts as its own
confirmation and the winners of several sweeps have the same seeds."""
USUAL_SEEDS = 5
"""With four or fewer, the t-interval is too wide to be useful."""


def open_origin(sweep: Sweep) -> tuple[Sweep, str | None]:
    """The sweep and trial that a confirmation belongs to; any other sweep itself, and None."""
    if sweep.entry.confirms is None:
        return sweep, None
    origin, _, trial = sweep.entry.confirms.rpartition("/")
    sweep.close()
    return open_sweep(origin), trial


def confirmation_of(sweep: Sweep, trial_id: str) -> SweepEntry | None:
    """The sweep that confirms a trial, if there is one."""
    return next((found for found in known() if found.confirms == f"{sweep.id}/{trial_id}"), None)


def confirm(sweep: Sweep, record: TrialRecord, seeds: int | None, *, searched: Collection[int]) -> Sweep:
    """Open the sweep that trains a trial's configuration with further seeds, created or extended as needed.

    It is an embedded sweep in the same database, and every command works on it.

    Args:
        sweep: The sweep that was searched.
        record: Its chosen trial.
        seeds: How many; fewer than it has changes nothing. None for those it has, or USUAL_SEEDS.
        searched: Seeds of the search, which cannot confirm it.

    Raises:
        ConfigError: The trial's configuration cannot be trained.
        StorageError: The database or the sweep's folder cannot be written.
    """
    found = confirmation_of(sweep, record.trial_id)
    if found and seeds is None:
        return open_entry(found)
    seeds = seeds or USUAL_SEEDS
    unused = [seed for seed in range(FIRST_SEED, FIRST_SEED + seeds + len(searched)) if seed not in searched][:seeds]
    confirmation = open_entry(found) if found else _make(sweep, record, unused)
    present = seeds_of(confirmation)
    if len(present) >= seeds:
        return confirmation
    more = [seed for seed in unused if seed not in present]
    file = _file(sweep, record, [*present, *more[: seeds - len(present)]])
    extend_sweep(confirmation.database, confirmation.id, file)
    remember(confirmation.entry, file)
    confirmation.close()
    return open_entry(confirmation.entry)


def seeds_of(confirmation: Sweep) -> tuple[int, ...]:
    """The seeds that a confirmation trains, in its order."""
    values: Any = confirmation.file.to_plain()["parameters"]["seed"]["values"]
    return tuple(values)


def _make(sweep: Sweep, record: TrialRecord, seeds: list[int]) -> Sweep:
    file = _file(sweep, record, seeds)
    name = str(file.name)
    # Changes nothing if another host, or a process that died after this step, has recorded it.
    record_sweep(file, name, sweep.entry.database)
    confirms = f"{sweep.id}/{record.trial_id}"
    made = open_entry(SweepEntry(name, "optuna", sweep.entry.storage, name, time.time(), confirms=confirms))
    remember(made.entry, made.file)
    made.data.inherit(sweep.entry)
    return made


def _file(sweep: Sweep, record: TrialRecord, seeds: list[int]) -> SweepFile:
    config = parse_trial(record.config).model_dump(mode="json")
    path = sweep.entry.path
    entity, project = path.split("/")[:2] if path else (sweep.file.entity, sweep.file.project)
    plain = {
        "program": "fersweep",
        "name": f"confirm-{sweep.id}-{record.trial_id}",
        "description": f"trial {record.trial_id} of sweep {sweep.id} with further seeds",
        "entity": entity,
        "project": project,
        "method": "grid",
        "metric": {"name": "best_val_acc", "goal": "maximize"},
        "parameters": {**_fixed(config), "seed": {"values": seeds}},
    }
    return parse_sweep({key: value for key, value in plain.items() if value is not None})


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    # None is the default of its field; a sweep file cannot contain it.
    return {
        name: {"parameters": _fixed(value)} if isinstance(value, dict) else {"value": value}
        for name, value in config.items()
        if value is not None
    }
