"""Choosing among the trials of sweeps: what the records of their searches come to."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fer_sweep.config.space import Space
from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.records import TrialState
from fer_sweep.search.confirmations import confirm, confirmation_of
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.registry import load, open_search
from fer_sweep.selection import Candidate, Caveat, Confirmed, Selection, caveats, select, select_each


@dataclass(frozen=True)
class Choice:
    """The choice among all trials of some sweeps, overall and architecture by architecture."""

    overall: Selection
    by_model: Mapping[str, Selection]
    caveats: tuple[Caveat, ...]


def candidates_of(entries: Sequence[SweepEntry]) -> list[Candidate]:
    """Every trial of some sweeps that has a result."""
    found = []
    for entry in entries:
        with contextlib.closing(open_search(entry)) as search:
            found += [Candidate(entry.id, r, r.result) for r in search.records() if r.result is not None]
    return found


def choose(entries: Sequence[SweepEntry]) -> Choice:
    """Choose among all trials of some sweeps; the strictest of their ``--max-gap`` holds for all."""
    candidates = candidates_of(entries)
    gaps = [entry.max_gap for entry in entries if entry.max_gap is not None]
    limit = min(gaps) if gaps else None
    overall, by_model = select(candidates, max_gap=limit), select_each(candidates, max_gap=limit)
    spaces = {entry.id: Space.from_sweep(load(entry)) for entry in entries}
    return Choice(overall, by_model, caveats(overall, by_model, spaces))


def chosen(entry: SweepEntry, trial_id: str | None = None) -> Candidate:
    """The winner of one sweep, or the trial of it that is named.

    Raises:
        NothingToDo: No trial has a result to choose by.
        InputError: The sweep has no such trial with a result.
    """
    candidates = candidates_of([entry])
    if trial_id is None:
        selection = select(candidates, max_gap=entry.max_gap)
        if selection.winner is None:
            hint = f"train some: fersweep agent {entry.id}"
            raise NothingToDo(f"{selection.reason}: {entry.id}", hint=hint)
        return selection.winner
    for candidate in candidates:
        if candidate.record.trial_id == trial_id:
            return candidate
    known = ", ".join(candidate.record.trial_id for candidate in candidates[:20]) or "none yet"
    raise InputError(f"sweep {entry.id} has no trial {trial_id} with a result", hint=f"those that have one: {known}")


def with_further_seeds(entry: SweepEntry, candidate: Candidate, seeds: int | None) -> SweepEntry:
    """The sweep that trains a chosen trial with so many further seeds, made, made longer or found as it is."""
    searched = {int(c.record.config.get("seed", 0)) for c in candidates_of([entry])}
    return confirm(entry, candidate.record, seeds, searched=searched)


def confirmed(entry: SweepEntry, candidate: Candidate) -> Confirmed | None:
    """What the further seeds of a chosen trial came to so far; None if none were asked for."""
    confirmation = confirmation_of(entry, candidate.record.trial_id)
    if confirmation is None:
        return None
    ended = [c for c in candidates_of([confirmation]) if c.record.state is TrialState.COMPLETE]
    return Confirmed(
        name=candidate.name,
        model=candidate.model,
        data=str(candidate.record.config.get("data")),
        searched=candidate.result,
        seeds={int(c.record.config["seed"]): c.result for c in ended},
    )
