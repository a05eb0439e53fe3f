"""Choosing the winner among the trials of sweeps, and the sweeps that train a chosen trial with further seeds."""

import contextlib
import functools
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fer_sweep.config.metrics import RESULT_METRICS
from fer_sweep.config.sweep_file import Metric, SweepFile, parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import FersweepError, InputError, NothingToDo
from fer_sweep.files import sweep_folder
from fer_sweep.openings import Opening, all_openings
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.search.objective import objective_value
from fer_sweep.selection import (
    Candidate,
    Caveat,
    Confirmed,
    Selection,
    caveats,
    decides,
    differing_data,
    select,
    select_each,
)
from fer_sweep.store.sweeps import record_sweep
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


def choose(sweeps: Sequence[Sweep], candidates: Sequence[Candidate] | None = None, *, anyway: bool = False) -> Choice:
    """Choose among all trials of some sweeps; the strictest ``--max-gap`` applies to all.

    Their metric decides where it is another one than the validation accuracy, and the same in all of them.

    Args:
        sweeps: At least one.
        candidates: Their trials with a result, if they are read already.
        anyway: Choose although the trials were measured on different data.
    """
    if candidates is None:
        candidates = [candidate for sweep in sweeps for candidate in as_candidates(sweep.id, sweep.trials())]
    limit = min((sweep.entry.max_gap for sweep in sweeps if sweep.entry.max_gap is not None), default=None)
    metric, said = _common_metric(sweeps)
    if metric is not None:
        candidates = _valued(sweeps, candidates, metric)
        if candidates and all(candidate.value is None for candidate in candidates):
            said = (
                Caveat("metric", f"no trial reports {metric.name}, the sweep file's metric: ranked by best_val_acc"),
            )
            metric = None
    overall = select(candidates, max_gap=limit, metric=metric, anyway=anyway)
    by_model = select_each(candidates, max_gap=limit, metric=metric, anyway=anyway)
    spaces = {sweep.id: sweep.space for sweep in sweeps}
    by_name = {candidate.name: candidate for candidate in candidates}
    seeds = tuple(_confirmed(found, by_name[found.confirms]) for found in known() if found.confirms in by_name)
    return Choice(overall, by_model, (*said, *caveats(overall, by_model, spaces, seeds)), seeds)


def _common_metric(sweeps: Sequence[Sweep]) -> tuple[Metric | None, tuple[Caveat, ...]]:
    """The metric that ranks the trials of some sweeps, None for the validation accuracy, and a warning about it."""
    metrics = {(sweep.file.metric.name, sweep.file.metric.goal) if sweep.file.metric else None for sweep in sweeps}
    metric = sweeps[0].file.metric
    if len(metrics) > 1 and any(decides(sweep.file.metric) for sweep in sweeps):
        names = ", ".join(sorted({sweep.file.metric.name for sweep in sweeps if sweep.file.metric}))
        return None, (Caveat("metric", f"these sweeps have different metrics ({names}): ranked by best_val_acc"),)
    return metric if decides(metric) else None, ()


def _valued(sweeps: Sequence[Sweep], candidates: Sequence[Candidate], metric: Metric) -> list[Candidate]:
    by_id = {sweep.id: sweep for sweep in sweeps}
    is_of_result = metric.name in RESULT_METRICS
    found = []
    for candidate in candidates:
        reports = () if is_of_result else by_id[candidate.sweep].reports(candidate.record.trial_id)
        found.append(replace(candidate, value=objective_value(metric, reports, candidate.result)))
    return found


def winner_of(selection: Selection, sweeps: Sequence[Sweep]) -> Candidate:
    """The winner of a choice among the trials of some sweeps.

    Raises:
        NothingToDo: No trial has a result yet, or all of them collapsed or diverged.
        InputError: The trials were measured on different data.
    """
    if selection.winner is not None:
        return selection.winner
    ids, last = " ".join(sweep.id for sweep in sweeps), sweeps[-1]
    message = f"{selection.reason}: {ids}"
    if not selection.ranking:
        raise NothingToDo(message, hint=f"fersweep status {last.id} shows its trials and what to do next")
    single = "select one with --trial in confirm, test or export"
    if differing_data(selection.ranking):
        hint = "name sweeps of one data set" if len(sweeps) > 1 else single
        raise InputError(message, hint=f"{hint}; to rank them anyway: fersweep best {ids} --anyway")
    if last.state in OPEN_STATES:
        raise NothingToDo(message, hint=f"train more with fersweep agent {last.id}, or {single}")
    file = shlex.quote(str(last.folder / "sweep.yaml"))
    advice = f"lower lr or train more epochs: fersweep create {file} --set lr=0.0003"
    raise NothingToDo(message, hint=f"{advice}; or {single}")


def chosen(sweep: Sweep, trial_id: str | None = None) -> Candidate:
    """The winner of one sweep, or one of its trials.

    Raises:
        NothingToDo: No trial has a result to choose by.
        InputError: The sweep has no such trial with a result, or trained its trials on different data.
    """
    candidates = as_candidates(sweep.id, sweep.trials())
    if trial_id is None:
        return winner_of(choose([sweep], candidates).overall, [sweep])
    for candidate in candidates:
        if candidate.record.trial_id == trial_id:
            return candidate
    known_ids = ", ".join(candidate.record.trial_id for candidate in candidates[:20]) or "none yet"
    raise InputError(
        f"sweep {sweep.id} has no trial {trial_id} with a result", hint=f"trials with a result: {known_ids}"
    )


def next_steps(candidate: Candidate, further: Confirmed | None) -> tuple[str, ...]:
    """What leads on from a chosen trial: each a command, without ``fersweep``, and what it does.

    It is confirmed first, then tested once, then reported and used.

    Args:
        candidate: The trial.
        further: The results of its further seeds so far.
    """
    trial = f"{candidate.sweep} --trial {candidate.record.trial_id}"
    is_search = all(entry.confirms is None for entry in known() if entry.id == candidate.sweep)
    if is_search and (further is None or not further.seeds):
        return (f"confirm {trial} trains it again with further seeds",)
    info = pinned_data(candidate.sweep, candidate.data)
    if (info is None or any(info.counts.get("test", {}).values())) and not openings_about([candidate]):
        return (f"test {trial} opens the test split, once",)
    return used(candidate)


def used(candidate: Candidate) -> tuple[str, ...]:
    """The steps after the test split was opened, as ``next_steps`` gives them."""
    trial = f"{candidate.sweep} --trial {candidate.record.trial_id}"
    return (
        f"report {candidate.sweep} writes all of this as one HTML page",
        f"export {trial} -o FOLDER writes the model for other programs",
        f"predict PICTURE --sweep {trial} shows what it says of a picture",
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


def confirmed(candidate: Candidate) -> Confirmed | None:
    """The results of a chosen trial's further seeds so far; None without a confirmation."""
    return next((_confirmed(found, candidate) for found in known() if found.confirms == candidate.name), None)


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
    found = next((found for found in known() if found.confirms == candidate.name), None)
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
    with confirmation.ledger(write=True) as ledger:  # the longer grid begins with the same configurations
        ledger.change_settings(file, budget_epochs=None, steered=None)
        ledger.reopen_sweep()
    confirmation.settings()
    remember(confirmation.entry, file)
    return confirmation


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


def file_of(sweep: Sweep, candidate: Candidate) -> SweepFile:
    """A sweep file of one trial's configuration alone."""
    trial = candidate.record.trial_id
    about = {
        "name": f"{sweep.id}-{trial}",
        "description": f"the configuration of trial {trial} of sweep {sweep.id}",
        "metric": sweep.file.metric.model_dump(exclude_unset=True) if sweep.file.metric else None,
    }
    return _file(sweep, candidate, [int(candidate.record.config.get("seed", 0))], about)


def _file(sweep: Sweep, candidate: Candidate, seeds: list[int], about: Mapping[str, Any] | None = None) -> SweepFile:
    trial = candidate.record.trial_id
    trained = parse_trial(candidate.record.config)
    config = {"model": trained.model, **trained.model_dump(mode="json")}
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
        **(about or {}),
    }
    return parse_sweep({key: value for key, value in plain.items() if value is not None})


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    # None is the default of its field; a sweep file cannot contain it.
    return {
        name: {"parameters": _fixed(value)} if isinstance(value, dict) else {"value": value}
        for name, value in config.items()
        if value is not None
    }
