"""Ranking, Pareto front and winner."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fer_sweep.config.sweep_file import Metric
from fer_sweep.formatting import percent, short
from fer_sweep.records import TrialRecord, TrialResult, TrialState, Verdict
from fer_sweep.selection.intervals import binomial_error

RULE = (
    "Among the trials within one standard error of the best validation accuracy, those whose train-val gap is within "
    "one standard error of the smallest are equal, and a gap below zero counts as zero. The winner is the one of these "
    "with the fewest parameters, then the best accuracy. Collapsed and diverged trials never win. Where the sweep "
    "file's metric is another one than the validation accuracy, the trial with its best value wins."
)
"""The rule of ``select``, for every view that shows a winner."""


@dataclass(frozen=True)
class Candidate:
    """A trial that has a result."""

    sweep: str
    record: TrialRecord
    result: TrialResult
    fingerprint: str = ""
    """Of the data set it was measured on; empty if its sweep has not recorded it."""
    value: float | None = None
    """Of the sweep file's metric, where that is another one than the validation accuracy."""

    @property
    def name(self) -> str:
        """SWEEP/TRIAL."""
        return f"{self.sweep}/{self.record.trial_id}"

    @property
    def model(self) -> str:
        """Its architecture."""
        return str(self.record.config.get("model", ""))

    @property
    def data(self) -> str:
        """The name of the data set it was measured on."""
        return str(self.record.config.get("data", ""))

    @property
    def images(self) -> int:
        """How many validation images its accuracy was measured on."""
        return sum(map(sum, self.result.confusion_matrix))

    @property
    def gap(self) -> float:
        """The train-val gap by which it is chosen: at least 0, since a gap below that is noise."""
        return max(self.result.train_val_gap, 0.0)

    @property
    def is_sound(self) -> bool:
        """Whether it may win: it neither diverged nor collapsed."""
        return self.result.best_epoch > 0 and self.result.verdict.may_win


@dataclass(frozen=True)
class Selection:
    """The ranking of some trials and the winner."""

    ranking: tuple[Candidate, ...]
    """All with a result, best first."""
    pareto: tuple[Candidate, ...]
    """The eligible trials that no other beats in both accuracy and gap, best accuracy first."""
    winner: Candidate | None
    standard_error: float
    """Of the best validation accuracy, as a fraction; 0 when there is nothing to choose from."""
    reason: str
    """Why the winner won, or why there is none, in a sentence without its full stop."""
    eligible: tuple[Candidate, ...] = ()
    """The trials that could win, in the ranking's order: sound and complete, or pruned if none is complete."""
    near: tuple[Candidate, ...] = ()
    """The eligible trials within one standard error of the best accuracy, ``near[0]``, in the ranking's order."""
    metric: Metric | None = None
    """What it is ranked by, where that is another metric than the validation accuracy."""


def decides(metric: Metric | None) -> bool:
    """Whether a sweep file's metric ranks by something else than the validation accuracy."""
    return metric is not None and metric.name not in ("best_val_acc", "val_acc")


def select(
    candidates: Iterable[Candidate],
    *,
    max_gap: float | None = None,
    metric: Metric | None = None,
    anyway: bool = False,
) -> Selection:
    """Choose by the one-standard-error rule (Breiman et al. 1984), on the accuracy and then on the gap: see ``RULE``.

    Pruned trials are ranked, but win, or stand on the Pareto front, only if no sound trial is complete: their schedule
    was cut short. Trials measured on different data have no winner, because their accuracies are not comparable. The
    order of the candidates does not matter.

    Args:
        candidates: Trials with a result, of any number of sweeps.
        max_gap: Trials with a larger gap cannot win, unless all have one.
        metric: Rank by each candidate's ``value`` of this metric; None for the validation accuracy.
        anyway: Choose although the trials were measured on different data.
    """
    sign = -1 if metric is None or metric.goal == "maximize" else 1

    def place(c: Candidate) -> tuple[bool, float]:
        return (False, 0.0) if metric is None else (c.value is None, sign * (c.value or 0.0))

    ranking = tuple(sorted(candidates, key=lambda c: (*place(c), *_accuracy_first(c))))
    sound = [c for c in ranking if c.is_sound and (metric is None or c.value is not None)]
    if not sound or (differing_data(ranking) and not anyway):
        return Selection(ranking, (), None, 0.0, _why_none(ranking, metric), metric=metric)
    eligible = [c for c in sound if c.record.state is TrialState.COMPLETE] or sound
    feasible = [c for c in eligible if max_gap is None or c.gap <= max_gap]
    among = feasible or eligible
    best = among[0]
    if metric is None:
        error = binomial_error(best.result.best_val_acc, best.images)
        near = [c for c in among if c.result.best_val_acc >= best.result.best_val_acc - error]
        calmest = min(near, key=lambda c: (c.gap, gap_error(c)))
        equal = [c for c in near if c.gap <= calmest.gap + gap_error(calmest)]
        winner = min(equal, key=lambda c: (c.result.parameters, -c.result.best_val_acc, *_age(c)))
        of = "best accuracy" if best is ranking[0] else "best accuracy that can win"
        reason = "it is the only trial that can win"
        if len(among) > 1:
            reason = _why(winner, near, equal, error, gap_error(calmest), of)
    else:
        error, near, winner = 0.0, [best], best
        least = "highest" if metric.goal == "maximize" else "lowest"
        of = "" if best is ranking[0] else " of those that can win"
        reason = f"it has the {least} {metric.name}{of}, {short(best.value)}; the sweep file says to {metric.goal} that"
    if max_gap is not None and len(feasible) < len(eligible):
        limit = f"{100 * max_gap:.1f} points"
        reason += f"; only gaps of at most {limit} were considered" if feasible else f"; every gap exceeds {limit}"
    front = pareto_front(sorted(eligible, key=_accuracy_first))
    return Selection(ranking, front, winner, error, reason, tuple(eligible), tuple(near), metric)


def select_each(
    candidates: Iterable[Candidate],
    *,
    max_gap: float | None = None,
    metric: Metric | None = None,
    anyway: bool = False,
) -> dict[str, Selection]:
    """Choose among the trials of each architecture, as ``select`` does; architectures in alphabetical order."""
    by_model: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_model.setdefault(candidate.model, []).append(candidate)
    return {model: select(by_model[model], max_gap=max_gap, metric=metric, anyway=anyway) for model in sorted(by_model)}


def gap_error(candidate: Candidate) -> float:
    """The standard error of ``train_val_gap``: sqrt(p (1 - p) / n + q (1 - q) / n).

    The gap is the difference of two accuracies, p on n validation images and q on about as many training images. No
    image is in both samples, so the variances add up. At FER2013's n = 3,589 it is about 1.1 points.
    """
    result, n = candidate.result, candidate.images
    return math.hypot(binomial_error(result.best_val_acc, n), binomial_error(result.train_acc, n))


def differing_data(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """The data sets that some candidates were measured on, as text; empty if there is only one.

    Data sets are compared by fingerprint, or by name where a candidate has none.
    """
    candidates = list(candidates)
    fingerprints: dict[str, set[str]] = {}
    for candidate in candidates:
        if candidate.fingerprint:
            fingerprints.setdefault(candidate.data, set()).add(candidate.fingerprint)
    found: dict[str, str] = {}
    for candidate in candidates:
        by_name = fingerprints.get(candidate.data, set())
        identity = candidate.fingerprint or (min(by_name) if len(by_name) == 1 else candidate.data)
        shown = f"{candidate.data} ({candidate.fingerprint[:12]})" if candidate.fingerprint else candidate.data
        found[identity] = min(shown, found.get(identity, shown))
    return tuple(sorted(found.values())) if len(found) > 1 else ()


def pareto_front(ranking: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates that no other beats in both accuracy and gap.

    Args:
        ranking: Best accuracy first, smaller gap first among equals.
    """
    front: list[Candidate] = []
    for candidate in ranking:
        if not front or candidate.gap < front[-1].gap:
            front.append(candidate)
    return tuple(front)


def _accuracy_first(candidate: Candidate) -> tuple[Any, ...]:
    return (-candidate.result.best_val_acc, candidate.gap, candidate.result.parameters, *_age(candidate))


def _age(candidate: Candidate) -> tuple[str, int, str]:
    # The older trial of a sweep first: numbers in names count as numbers.
    trial = candidate.record.trial_id
    return candidate.sweep, len(trial), trial


def _why_none(ranking: Sequence[Candidate], metric: Metric | None) -> str:
    if not ranking:
        return "no trial has a result yet"
    if data := differing_data(ranking):
        names = ", ".join(data)
        return f"these trials were measured on different data ({names}), so their accuracies are not comparable"
    if metric is not None and any(c.is_sound for c in ranking):
        return f"no trial has a value of {metric.name}, the metric of the sweep file"
    fates = {"collapsed" if c.result.verdict is Verdict.COLLAPSED else "diverged" for c in ranking}
    return f"{'every' if len(ranking) > 1 else 'the only'} trial {' or '.join(sorted(fates))}"


def _why(
    winner: Candidate, near: Sequence[Candidate], equal: Sequence[Candidate], error: float, gap: float, of: str
) -> str:
    """``error`` and ``gap`` are the standard errors of the best accuracy and of the smallest gap."""
    if len(near) == 1:
        return f"it has the {of}, by more than one standard error ({100 * error:.2f} points)"
    best = near[0]
    where = "its own" if winner is best else f"{percent(best.result.best_val_acc)} in trial {best.name}"
    pool = f"{len(near)} trials are within one standard error ({100 * error:.2f} points) of the {of}, {where}"
    within = f"one standard error ({100 * gap:.2f} points)"
    if len(equal) == 1:
        return f"{pool}; its gap is the smallest by more than {within}"
    smallest = [c for c in equal if c.result.parameters == winner.result.parameters]
    merit = "it has the fewest parameters"
    if len(smallest) > 1:
        is_tied = smallest[0].result.best_val_acc == smallest[1].result.best_val_acc
        place = "the first of the most accurate" if is_tied else "the most accurate"
        merit = f"of the {len(smallest)} with the fewest parameters it is {place}"
    return f"{pool}; the gaps of {len(equal)} of them are within {within} of the smallest, and {merit}"
