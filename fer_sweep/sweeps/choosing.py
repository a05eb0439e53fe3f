"""Choosing the winner among the trials of sweeps, and the sweeps that train a chosen trial with further seeds."""

import contextlib
import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import FersweepError, InputError, NothingToDo
from fer_sweep.files import sweep_folder
from fer_sweep.openings import Opening, all_openings
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.selection import Candidate, Caveat, Confirmed, Selection, caveats, differing_data, select, select_each
from fer_sweep.store.sweeps import extend_sweep, record_sweep
from fer_sweep.sweeps.entries import SweepEntry, known, pinned_data, remember
from fer_sweep.sweeps.opened import OPEN_STATES, Sweep
from fer_sweep.sweeps.opening import open_entry, open_sweep

FIRST_SEED = 1000
"""The first further seed, far from those used in searches, so that no measurement of the search counts as its own
confirmation and the winners of several sweeps have the same seeds."""
USUAL_SEEDS = 5
"""With four or fewer, the t-interval is too wide to be useful."""


@dataclass(frozen=True)
class Choice:
    """The choice among the trials of some sweeps, overall and for each architecture."""

    overall: Selection
    by_model: Mapping[str, Selection]
    caveats: tuple[Caveat, ...]
    confirmed: tuple[Confirmed, ...] = ()
    """The trials of these sweeps that were trained with further seeds."""

    @property
    def winner_confirmed(self) -> Confirmed | None:
        """The results of the winner's further seeds so far; None without a confirmation."""
        winner = self.overall.winner
        return next((found for found in self.confirmed if winner and found.name == winner.name), None)


def as_candidates(sweep_id: str, records: Iterable[TrialRecord]) -> list[Candidate]:
    """The trials of a sweep that have a result, with the fingerprint of their data set."""

    @functools.cache
    def fingerprint(name: str) -> str:
        info = pinned_data(sweep_id, name)
        return info.fingerprint if info else ""

    return [
        Candidate(sweep_id, record, record.result, fingerprint(str(record.config.get("data", ""))))
        for record in records
        if record.result is not None
    ]


def choose(sweeps: Sequence[Sweep], candidates: Sequence[Candidate] | None = None) -> Choice:
    """Choose among all trials of some sweeps, which may be read already; the strictest ``--max-gap`` applies to all."""
    if candidates is None:
        candidates = [candidate for sweep in sweeps for candidate in as_candidates(sweep.id, sweep.trials())]
    limit = min((sweep.entry.max_gap for sweep in sweeps if sweep.entry.max_gap is not None), default=None)
    overall, by_model = select(candidates, max_gap=limit), select_each(candidates, max_gap=limit)
    spaces = {sweep.id: sweep.space for sweep in sweeps}
    by_name = {candidate.name: candidate for candidate in candidates}
    seeds = tuple(_confirmed(found, by_name[found.confirms]) for found in known() if found.confirms in by_name)
    return Choice(overall, by_model, caveats(overall, by_model, spaces), seeds)


def winner_of(selection: Selection, sweeps: Sequence[Sweep]) -> Candidate:
    """The winner of a choice among the trials of some sweeps.

    Raises:
        NothingToDo: No trial has a result yet, or all of them collapsed or diverged.
        InputError: The trials were measured on different data.
    """
    if selection.winner is not None:
        return selection.winner
    ids, last = ", ".join(sweep.id for sweep in sweeps), sweeps[-1].id
    message = f"{selection.reason}: {ids}"
    if not selection.ranking:
        raise NothingToDo(message, hint=f"fersweep status {last} shows its trials and what to do next")
    single = f"list the trials with fersweep status {last}, and select one with --trial in confirm, test or export"
    if differing_data(selection.ranking):
        raise InputError(message, hint="name sweeps of one data set" if len(sweeps) > 1 else single)
    if sweeps[-1].state in OPEN_STATES:
        raise NothingToDo(message, hint=f"train more with fersweep agent {last}, or {single}")
    look = f"fersweep report {last} shows their curves; search other ranges in a new sweep, or select one with --trial"
    raise NothingToDo(message, hint=f"{look} in confirm, test or export")


def chosen(sweep: Sweep, trial_id: str | None = None) -> Candidate:
    """The winner of one sweep, or one of its trials.

    Raises:
        NothingToDo: No trial has a result to choose by.
        InputError: The sweep has no such trial with a result, or trained its trials on different data.
    """
    candidates = as_candidates(sweep.id, sweep.trials())
    if trial_id is None:
        return winner_of(select(candidates, max_gap=sweep.entry.max_gap), [sweep])
    for candidate in candidates:
        if candidate.record.trial_id == trial_id:
            return candidate
    known_ids = ", ".join(candidate.record.trial_id for candidate in candidates[:20]) or "none yet"
    raise InputError(
        f"sweep {sweep.id} has no trial {trial_id} with a result", hint=f"trials with a result: {known_ids}"
    )


def openings_about(candidates: Sequence[Candidate]) -> tuple[Opening, ...]:
    """Every recorded opening that concerns some trials, earliest first.

    These are openings of their data's test split for any model, and of every split that one of them was tested on.
    """
    folders = {sweep_folder(candidate.sweep) for candidate in candidates}
    openings = all_openings(*sorted(folders))
    fingerprints = {candidate.fingerprint for candidate in candidates} - {""}
    splits = _prepared_splits(candidates)
    names = {candidate.name for candidate in candidates}
    splits |= {o.test_fingerprint for o in openings if o.fingerprint in fingerprints or o.model in names}
    return tuple(opening for opening in openings if opening.test_fingerprint in splits)


def after_confirmation(candidate: Candidate) -> str:
    """The command that leads on from a confirmed trial, and what it does."""
    if openings_about([candidate]):
        return f"fersweep report {candidate.sweep} shows all of it; fersweep export {candidate.sweep} -o FOLDER"
    return f"fersweep test {candidate.sweep} --trial {candidate.record.trial_id} opens the test split, once"


def _prepared_splits(candidates: Sequence[Candidate]) -> set[str]:
    """The fingerprints of the candidates' test splits, for data sets that are prepared on this host."""
    from fer_sweep.data import store  # only here: choosing alone needs no images
    from fer_sweep.data.cache import open_dataset
    from fer_sweep.data.dataset import fingerprint_of_test

    prepared = set(store.names())
    found = set()
    for name, fingerprint in {(candidate.data, candidate.fingerprint) for candidate in candidates}:
        if name in prepared:
            # One that is damaged, or has no test images, must not hide the openings of others.
            with contextlib.suppress(FersweepError):
                dataset = open_dataset(name)
                if fingerprint in ("", dataset.info.fingerprint):
                    found.add(fingerprint_of_test(dataset))
    return found


def confirmation_of(candidate: Candidate) -> SweepEntry | None:
    """The sweep that confirms a trial, if there is one."""
    return next((found for found in known() if found.confirms == candidate.name), None)


def confirmed(candidate: Candidate) -> Confirmed | None:
    """The results of a chosen trial's further seeds so far; None without a confirmation."""
    confirmation = confirmation_of(candidate)
    return None if confirmation is None else _confirmed(confirmation, candidate)


def _confirmed(confirmation: SweepEntry, candidate: Candidate) -> Confirmed:
    with open_entry(confirmation) as sweep:
        ended = [record for record in sweep.trials() if record.state is TrialState.COMPLETE]
    return Confirmed(
        name=candidate.name,
        model=candidate.model,
        data=candidate.fingerprint or candidate.data,
        searched=candidate.result,
        seeds={int(record.config["seed"]): record.result for record in ended if record.result is not None},
    )


def open_origin(sweep: Sweep) -> tuple[Sweep, str | None]:
    """The sweep and trial that a confirmation belongs to; any other sweep itself, and None."""
    if sweep.entry.confirms is None:
        return sweep, None
    origin, _, trial = sweep.entry.confirms.rpartition("/")
    sweep.close()
    return open_sweep(origin), trial


def with_further_seeds(sweep: Sweep, candidate: Candidate, seeds: int | None) -> Sweep:
    """Open the sweep that trains a chosen trial's configuration with further seeds, created or extended as needed.

    It is an embedded sweep in the same database, and every command works on it.

    Args:
        sweep: The sweep that was searched.
        candidate: Its chosen trial.
        seeds: How many; fewer than it has changes nothing. None for those it has, or USUAL_SEEDS.
    """
    found = confirmation_of(candidate)
    if found and seeds is None:
        return open_entry(found)
    seeds = seeds or USUAL_SEEDS
    # Seeds of the search cannot confirm it.
    searched = {int(record.config.get("seed", 0)) for record in sweep.trials() if record.result is not None}
    unused = [seed for seed in range(FIRST_SEED, FIRST_SEED + seeds + len(searched)) if seed not in searched][:seeds]
    confirmation = open_entry(found) if found else _make(sweep, candidate, unused)
    present = seeds_of(confirmation)
    if len(present) >= seeds:
        return confirmation
    more = [seed for seed in unused if seed not in present]
    file = _file(sweep, candidate, [*present, *more[: seeds - len(present)]])
    extend_sweep(confirmation.database, confirmation.id, file)
    remember(confirmation.entry, file)
    confirmation.close()
    return open_entry(confirmation.entry)


def seeds_of(confirmation: Sweep) -> tuple[int, ...]:
    """The seeds that a confirmation trains, in its order."""
    values: Any = confirmation.file.to_plain()["parameters"]["seed"]["values"]
    return tuple(values)


def _make(sweep: Sweep, candidate: Candidate, seeds: list[int]) -> Sweep:
    file = _file(sweep, candidate, seeds)
    name = str(file.name)
    # Changes nothing if another host, or a process that died after this step, has recorded it.
    record_sweep(file, name, sweep.entry.database)
    made = open_entry(SweepEntry(name, "optuna", sweep.entry.storage, name, time.time(), confirms=candidate.name))
    remember(made.entry, made.file)
    made.data.inherit(sweep.entry)
    return made


def _file(sweep: Sweep, candidate: Candidate, seeds: list[int]) -> SweepFile:
    trial = candidate.record.trial_id
    config = parse_trial(candidate.record.config).model_dump(mode="json")
    entity, project = sweep.file.entity, sweep.file.project
    if sweep.entry.path:
        entity, _, project_and_id = sweep.entry.path.partition("/")
        project = project_and_id.rpartition("/")[0]
    plain = {
        "program": "fersweep",
        "name": f"confirm-{sweep.id}-{trial}",
        "description": f"trial {trial} of sweep {sweep.id} with further seeds",
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
