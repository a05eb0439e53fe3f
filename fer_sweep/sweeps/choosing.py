"""Choosing the winner among the trials of sweeps."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fer_sweep.errors import FersweepError, InputError, NothingToDo
from fer_sweep.files import sweep_folder
from fer_sweep.openings import Opening, all_openings
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.selection import Candidate, Caveat, Confirmed, Selection, caveats, differing_data, select, select_each
from fer_sweep.sweeps.confirmations import confirm, confirmation_of
from fer_sweep.sweeps.data import pinned_data
from fer_sweep.sweeps.entries import SweepEntry, known
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.opening import open_entry


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
    fingerprints: dict[str, str] = {}
    found = []
    for record in records:
        if record.result is None:
            continue
        name = str(record.config.get("data", ""))
        if name not in fingerprints:
            info = pinned_data(sweep_id, name)
            fingerprints[name] = info.fingerprint if info else ""
        found.append(Candidate(sweep_id, record, record.result, fingerprints[name]))
    return found


def candidates_of(sweeps: Iterable[Sweep]) -> list[Candidate]:
    """Every trial of some sweeps that has a result."""
    return [candidate for sweep in sweeps for candidate in as_candidates(sweep.id, sweep.trials())]


def choose(sweeps: Sequence[Sweep], candidates: Sequence[Candidate] | None = None) -> Choice:
    """Choose among all trials of some sweeps; the strictest ``--max-gap`` applies to all.

    Args:
        sweeps: The sweeps.
        candidates: Their trials, if already read.
    """
    candidates = candidates_of(sweeps) if candidates is None else candidates
    gaps = [sweep.entry.max_gap for sweep in sweeps if sweep.entry.max_gap is not None]
    limit = min(gaps) if gaps else None
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
    raise NothingToDo(message, hint=f"train more with fersweep agent {last}, or {single}")


def chosen(sweep: Sweep, trial_id: str | None = None) -> Candidate:
    """The winner of one sweep, or one of its trials.

    Raises:
        NothingToDo: No trial has a result to choose by.
        InputError: The sweep has no such trial with a result, or trained its trials on different data.
    """
    candidates = candidates_of([sweep])
    if trial_id is None:
        return winner_of(select(candidates, max_gap=sweep.entry.max_gap), [sweep])
    for candidate in candidates:
        if candidate.record.trial_id == trial_id:
            return candidate
    known_ids = ", ".join(candidate.record.trial_id for candidate in candidates[:20]) or "none yet"
    raise InputError(
        f"sweep {sweep.id} has no trial {trial_id} with a result", hint=f"trials with a result: {known_ids}"
    )


def with_further_seeds(sweep: Sweep, candidate: Candidate, seeds: int | None) -> Sweep:
    """Open the sweep that trains a chosen trial with further seeds, created or extended as needed."""
    searched = {int(c.record.config.get("seed", 0)) for c in candidates_of([sweep])}
    return confirm(sweep, candidate.record, seeds, searched=searched)


def confirmed(sweep: Sweep, candidate: Candidate) -> Confirmed | None:
    """The results of a chosen trial's further seeds so far; None without a confirmation."""
    confirmation = confirmation_of(sweep, candidate.record.trial_id)
    return None if confirmation is None else _confirmed(confirmation, candidate)


def openings_about(candidates: Sequence[Candidate]) -> tuple[Opening, ...]:
    """Every recorded opening that concerns some trials, earliest first.

    These are openings of their data's test split for any model, and of every split that one of them was tested on.

    Raises:
        StorageError: A file that records them cannot be read.
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
    # Only here: choosing alone needs no images.
    from fer_sweep.data import store
    from fer_sweep.data.dataset import Split, fingerprint_of_test

    prepared = set(store.names())
    found = set()
    for name, fingerprint in {(candidate.data, candidate.fingerprint) for candidate in candidates}:
        # A damaged data set must not hide the openings of others.
        with contextlib.suppress(FersweepError):
            info = store.read_info(name) if name in prepared else None
            if info is not None and fingerprint in ("", info.fingerprint) and info.split_total(Split.TEST):
                found.add(fingerprint_of_test(store.load(info)))
    return found


def _confirmed(confirmation: SweepEntry, candidate: Candidate) -> Confirmed:
    with open_entry(confirmation) as sweep:
        ended = [c for c in candidates_of([sweep]) if c.record.state is TrialState.COMPLETE]
    return Confirmed(
        name=candidate.name,
        model=candidate.model,
        data=candidate.fingerprint or candidate.data,
        searched=candidate.result,
        seeds={int(c.record.config["seed"]): c.result for c in ended},
    )
