"""Choosing among the trials of sweeps: what the records of their searches come to."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fer_sweep.config.space import Space
from fer_sweep.errors import FersweepError, InputError, NothingToDo
from fer_sweep.files import sweep_folder
from fer_sweep.openings import Opening, all_openings
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.search.confirmations import confirm, confirmation_of
from fer_sweep.search.entries import SweepEntry, known
from fer_sweep.search.registry import load, open_search
from fer_sweep.search.sweep_data import written_data
from fer_sweep.selection import Candidate, Caveat, Confirmed, Selection, caveats, differing_data, select, select_each


@dataclass(frozen=True)
class Choice:
    """The choice among all trials of some sweeps, overall and architecture by architecture."""

    overall: Selection
    by_model: Mapping[str, Selection]
    caveats: tuple[Caveat, ...]
    confirmed: tuple[Confirmed, ...] = ()
    """The trials of these sweeps that were trained again with further seeds, the winner or not."""

    @property
    def winner_confirmed(self) -> Confirmed | None:
        """What the further seeds of the winner came to so far; None if none were asked for."""
        winner = self.overall.winner
        return next((found for found in self.confirmed if winner and found.name == winner.name), None)


def as_candidates(sweep_id: str, records: Iterable[TrialRecord]) -> list[Candidate]:
    """Those trials of a sweep that have a result, with the fingerprint of the data each was measured on."""
    fingerprints: dict[str, str] = {}
    found = []
    for record in records:
        if record.result is None:
            continue
        name = str(record.config.get("data", ""))
        if name not in fingerprints:
            info = written_data(sweep_id, name)
            fingerprints[name] = info.fingerprint if info else ""
        found.append(Candidate(sweep_id, record, record.result, fingerprints[name]))
    return found


def candidates_of(entries: Sequence[SweepEntry]) -> list[Candidate]:
    """Every trial of some sweeps that has a result."""
    found = []
    for entry in entries:
        with contextlib.closing(open_search(entry)) as search:
            found += as_candidates(entry.id, search.records())
    return found


def choose(entries: Sequence[SweepEntry], candidates: Sequence[Candidate] | None = None) -> Choice:
    """Choose among all trials of some sweeps; the strictest of their ``--max-gap`` holds for all.

    Args:
        entries: The sweeps.
        candidates: Their trials, if they have been read already.
    """
    candidates = candidates_of(entries) if candidates is None else candidates
    gaps = [entry.max_gap for entry in entries if entry.max_gap is not None]
    limit = min(gaps) if gaps else None
    overall, by_model = select(candidates, max_gap=limit), select_each(candidates, max_gap=limit)
    spaces = {entry.id: Space.from_sweep(load(entry)) for entry in entries}
    by_name = {candidate.name: candidate for candidate in candidates}
    seeds = tuple(_confirmed(found, by_name[found.confirms]) for found in known() if found.confirms in by_name)
    return Choice(overall, by_model, caveats(overall, by_model, spaces), seeds)


def winner_of(selection: Selection, entries: Sequence[SweepEntry]) -> Candidate:
    """The winner of a choice among the trials of some sweeps.

    Raises:
        NothingToDo: No trial has a result yet, or all of them collapsed or diverged.
        InputError: The trials were measured on different data.
    """
    if selection.winner is not None:
        return selection.winner
    ids, last = ", ".join(entry.id for entry in entries), entries[-1].id
    message = f"{selection.reason}: {ids}"
    if not selection.ranking:
        raise NothingToDo(message, hint=f"train some: fersweep agent {last}")
    single = f"fersweep status {last} lists them, and confirm, test, predict and export take one with --trial"
    if differing_data(selection.ranking):
        raise InputError(message, hint="name sweeps of one data set" if len(entries) > 1 else single)
    raise NothingToDo(message, hint=f"train more: fersweep agent {last}; {single}")


def chosen(entry: SweepEntry, trial_id: str | None = None) -> Candidate:
    """The winner of one sweep, or the trial of it that is named.

    Raises:
        NothingToDo: No trial has a result to choose by.
        InputError: The sweep has no such trial with a result, or trained its trials on different data.
    """
    candidates = candidates_of([entry])
    if trial_id is None:
        return winner_of(select(candidates, max_gap=entry.max_gap), [entry])
    for candidate in candidates:
        if candidate.record.trial_id == trial_id:
            return candidate
    known_ids = ", ".join(candidate.record.trial_id for candidate in candidates[:20]) or "none yet"
    raise InputError(
        f"sweep {entry.id} has no trial {trial_id} with a result", hint=f"those that have one: {known_ids}"
    )


def with_further_seeds(entry: SweepEntry, candidate: Candidate, seeds: int | None) -> SweepEntry:
    """The sweep that trains a chosen trial with so many further seeds, made, made longer or found as it is."""
    searched = {int(c.record.config.get("seed", 0)) for c in candidates_of([entry])}
    return confirm(entry, candidate.record, seeds, searched=searched)


def confirmed(entry: SweepEntry, candidate: Candidate) -> Confirmed | None:
    """What the further seeds of a chosen trial came to so far; None if none were asked for."""
    confirmation = confirmation_of(entry, candidate.record.trial_id)
    return None if confirmation is None else _confirmed(confirmation, candidate)


def openings_about(candidates: Sequence[Candidate]) -> tuple[Opening, ...]:
    """Every recorded opening of a test split that concerns some trials, earliest first.

    That is the split of the data they were measured on, opened for any model, and every split that one of their
    sweeps' models was evaluated on.

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
    """The fingerprints of the candidates' test splits, as far as their data sets are prepared here."""
    # Only here: choosing alone needs no images.
    from fer_sweep.data import store
    from fer_sweep.data.dataset import Split, fingerprint_of_test

    prepared = set(store.names())
    found = set()
    for name, fingerprint in {(candidate.data, candidate.fingerprint) for candidate in candidates}:
        # A damaged data set hides no opening of another, nor one that is recorded by its fingerprint.
        with contextlib.suppress(FersweepError):
            info = store.read_info(name) if name in prepared else None
            if info is not None and fingerprint in ("", info.fingerprint) and info.split_total(Split.TEST):
                found.add(fingerprint_of_test(store.load(info)))
    return found


def _confirmed(confirmation: SweepEntry, candidate: Candidate) -> Confirmed:
    ended = [c for c in candidates_of([confirmation]) if c.record.state is TrialState.COMPLETE]
    return Confirmed(
        name=candidate.name,
        model=candidate.model,
        data=candidate.fingerprint or candidate.data,
        searched=candidate.result,
        seeds={int(c.record.config["seed"]): c.result for c in ended},
    )
