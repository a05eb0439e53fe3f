"""Sweeps that train one configuration with further seeds: what ``fersweep confirm`` makes, and finds again."""

import time
from collections.abc import Collection
from typing import Any

from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import NothingToDo
from fer_sweep.files import home
from fer_sweep.records import TrialRecord
from fer_sweep.search.entries import SweepEntry, known, remember
from fer_sweep.search.registry import find, load
from fer_sweep.search.storage import default_storage, extend_sweep, record_sweep
from fer_sweep.search.sweep_data import inherit_data

FIRST_SEED = 1000
"""Further seeds count from here, far from those that people search with, so that no measurement that took part in the
choice comes back as its confirmation, and the winners of several sweeps get the same ones."""
USUAL_SEEDS = 5
"""With four or fewer the t-interval is so wide that it hardly says anything."""


def last_searched() -> SweepEntry:
    """The sweep created last, those that ``confirm`` made left out.

    Raises:
        NothingToDo: There is none yet.
    """
    searched = [entry for entry in known() if entry.confirms is None]
    if not searched:
        raise NothingToDo(f"no sweep in {home()} yet", hint="make one: fersweep create sweeps/simple_cnn.yaml")
    return searched[-1]


def origin_of(entry: SweepEntry) -> tuple[SweepEntry, str | None]:
    """The sweep a confirmation is of, and its trial; any other sweep itself, and None."""
    if entry.confirms is None:
        return entry, None
    sweep, _, trial = entry.confirms.rpartition("/")
    return find(sweep), trial


def confirmation_of(entry: SweepEntry, trial_id: str) -> SweepEntry | None:
    """The sweep that confirms a trial, if one was made."""
    return next((found for found in known() if found.confirms == f"{entry.id}/{trial_id}"), None)


def confirm(entry: SweepEntry, record: TrialRecord, seeds: int | None, *, searched: Collection[int]) -> SweepEntry:
    """The sweep that trains a trial's configuration with so many further seeds: made, made longer, or as it is.

    It is an embedded one, in the same database, whoever searched; agents, resume and status work on it as on any other.

    Args:
        entry: The sweep that was searched.
        record: Its chosen trial.
        seeds: How many; fewer than it has already changes nothing. None for what it has, or USUAL_SEEDS.
        searched: Seeds that took part in the search, which cannot confirm it.

    Raises:
        ConfigError: The trial's configuration is not one that can be trained here.
        StorageError: The database or the sweep's folder cannot be written.
    """
    storage = entry.storage or default_storage()
    found = confirmation_of(entry, record.trial_id)
    if found and seeds is None:
        return found
    seeds = seeds or USUAL_SEEDS
    unused = [seed for seed in range(FIRST_SEED, FIRST_SEED + seeds + len(searched)) if seed not in searched][:seeds]
    found = found or _make(entry, record, unused, storage)
    present = seeds_of(found)
    if len(present) >= seeds:
        return found
    more = [seed for seed in unused if seed not in present]
    sweep = _file(entry, record, [*present, *more[: seeds - len(present)]])
    extend_sweep(sweep, found.id, storage)
    remember(found, sweep)
    return found


def seeds_of(confirmation: SweepEntry) -> tuple[int, ...]:
    """The seeds that a confirmation trains, in its order."""
    values: Any = load(confirmation).to_plain()["parameters"]["seed"]["values"]
    return tuple(values)


def _make(entry: SweepEntry, record: TrialRecord, seeds: list[int], storage: str) -> SweepEntry:
    sweep = _file(entry, record, seeds)
    name = str(sweep.name)
    # Recorded already by another host, or by a process that died after this step: then it stays as it is.
    record_sweep(sweep, name, storage)
    made = SweepEntry(name, "optuna", entry.storage, name, time.time(), confirms=f"{entry.id}/{record.trial_id}")
    remember(made, load(made))
    inherit_data(entry, made)
    return made


def _file(entry: SweepEntry, record: TrialRecord, seeds: list[int]) -> SweepFile:
    origin = load(entry)
    config = parse_trial(record.config).model_dump(mode="json")
    entity, project = (entry.path.split("/")[:2]) if entry.path else (origin.entity, origin.project)
    plain = {
        "program": "fersweep",
        "name": f"confirm-{entry.id}-{record.trial_id}",
        "description": f"trial {record.trial_id} of sweep {entry.id} with further seeds",
        "entity": entity,
        "project": project,
        "method": "grid",
        "metric": {"name": "best_val_acc", "goal": "maximize"},
        "parameters": {**_fixed(config), "seed": {"values": seeds}},
    }
    return parse_sweep({key: value for key, value in plain.items() if value is not None})


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    # What is None is its field's default; a sweep file has no word for it.
    return {
        name: {"parameters": _fixed(value)} if isinstance(value, dict) else {"value": value}
        for name, value in config.items()
        if value is not None
    }
