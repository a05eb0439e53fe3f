"""From records to a decision: ranking, Pareto front and winner. Pure functions, no files and no frameworks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fer_sweep.records import TrialRecord, TrialResult, TrialState


@dataclass(frozen=True)
class Candidate:
    """A trial that has a result, of one of the sweeps looked at."""

    sweep: str
    record: TrialRecord
    result: TrialResult


@dataclass(frozen=True)
class Selection:
    """What the trials come to."""

    ranking: tuple[Candidate, ...]
    """All with a result, best validation accuracy first."""
    pareto: tuple[Candidate, ...]
    """Those that no other beats in both accuracy and gap, best accuracy first."""
    winner: Candidate | None
    standard_error: float
    """Of the best validation accuracy, as a fraction; 0 when there is nothing to choose from."""
    reason: str
    """Why the winner won, in a sentence."""


def select(candidates: Iterable[Candidate], *, max_gap: float | None = None) -> Selection:
    """Choose by the one-standard-error rule (Breiman et al. 1984): accuracy differences within noise do not count.

    Among trials within one standard error of the best ``best_val_acc``, the smallest gap wins, then the fewest
    parameters. Pruned trials are ranked but win only where no trial is complete: their schedule was cut short.

    Args:
        candidates: Trials with a result, of any number of sweeps.
        max_gap: Trials with a larger gap cannot win, unless all have one.
    """
    ranking = tuple(sorted(candidates, key=lambda c: (-c.result.best_val_acc, c.result.train_val_gap)))
    # A trial that diverged in its first epoch has a gap of zero that means nothing.
    trained = [c for c in ranking if c.result.best_epoch > 0]
    if not trained:
        return Selection(ranking, (), None, 0.0, "every trial diverged" if ranking else "no trial has a result yet")
    eligible = [c for c in trained if c.record.state is TrialState.COMPLETE] or trained
    feasible = [c for c in eligible if max_gap is None or c.result.train_val_gap <= max_gap] or eligible
    best = feasible[0]
    error = standard_error(best.result)
    near = [c for c in feasible if c.result.best_val_acc >= best.result.best_val_acc - error]
    winner = min(near, key=lambda c: (c.result.train_val_gap, c.result.parameters, -c.result.best_val_acc))
    return Selection(ranking, pareto_front(trained), winner, error, _why(winner, best, near, error))


def standard_error(result: TrialResult) -> float:
    """The binomial standard error of ``best_val_acc``: sqrt(p (1 - p) / n) over the n validation images."""
    n = sum(map(sum, result.confusion_matrix))
    p = result.best_val_acc
    return math.sqrt(p * (1 - p) / n) if n else 0.0


def pareto_front(ranking: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those for which no other has both a higher accuracy and a smaller gap.

    Args:
        ranking: Best accuracy first, smaller gap first among equals.
    """
    front: list[Candidate] = []
    for candidate in ranking:
        if not front or candidate.result.train_val_gap < front[-1].result.train_val_gap:
            front.append(candidate)
    return tuple(front)


def _why(winner: Candidate, best: Candidate, near: Sequence[Candidate], error: float) -> str:
    if len(near) == 1:
        return f"no other trial is within one standard error ({100 * error:.2f} points) of its accuracy"
    others = f"{len(near)} trials within one standard error ({100 * error:.2f} points) of the best accuracy"
    if winner is best:
        return f"the best accuracy, and the smallest gap of {others}"
    return f"the smallest gap of {others}, {100 * best.result.best_val_acc:.2f} % in trial {best.record.trial_id}"
