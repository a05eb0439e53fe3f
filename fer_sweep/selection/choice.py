"""Ranking, Pareto front and winner."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fer_sweep.records import TrialRecord, TrialResult, TrialState, Verdict
from fer_sweep.selection.intervals import binomial_error


@dataclass(frozen=True)
class Candidate:
    """A trial that has a result, of one of the sweeps looked at."""

    sweep: str
    record: TrialRecord
    result: TrialResult

    @property
    def name(self) -> str:
        """SWEEP/TRIAL."""
        return f"{self.sweep}/{self.record.trial_id}"

    @property
    def model(self) -> str:
        """Its architecture."""
        return str(self.record.config.get("model", ""))

    @property
    def images(self) -> int:
        """How many validation images its accuracy was measured on."""
        return sum(map(sum, self.result.confusion_matrix))


@dataclass(frozen=True)
class Selection:
    """What the trials come to."""

    ranking: tuple[Candidate, ...]
    """All with a result, best validation accuracy first."""
    pareto: tuple[Candidate, ...]
    """Those of the eligible that no other beats in both accuracy and gap, best accuracy first."""
    winner: Candidate | None
    standard_error: float
    """Of the best validation accuracy, as a fraction; 0 when there is nothing to choose from."""
    reason: str
    """Why the winner won, in a sentence."""
    eligible: tuple[Candidate, ...] = ()
    """Those that could win, in the ranking's order: complete and not diverged, unless there is none such."""
    near: tuple[Candidate, ...] = ()
    """Those within one standard error, of which the winner has the smallest gap; in the ranking's order."""


def select(candidates: Iterable[Candidate], *, max_gap: float | None = None) -> Selection:
    """Choose by the one-standard-error rule (Breiman et al. 1984): accuracy differences within noise do not count.

    Among trials within one standard error of the best ``best_val_acc``, the smallest gap wins, then the fewest
    parameters. Pruned and diverged trials are ranked, but win, or stand on the Pareto front, only where there is no
    other: the schedule of the one was cut short, and the other would most likely diverge again. The order in which
    candidates come does not matter.

    Args:
        candidates: Trials with a result, of any number of sweeps.
        max_gap: Trials with a larger gap cannot win, unless all have one.
    """
    ranking = tuple(sorted(candidates, key=lambda c: (-c.result.best_val_acc, c.result.train_val_gap, *_size(c))))
    # A trial that diverged in its first epoch has a gap of zero that means nothing.
    trained = [c for c in ranking if c.result.best_epoch > 0]
    if not trained:
        return Selection(ranking, (), None, 0.0, "every trial diverged" if ranking else "no trial has a result yet")
    complete = [c for c in trained if c.record.state is TrialState.COMPLETE] or trained
    eligible = [c for c in complete if c.result.verdict is not Verdict.DIVERGED] or complete
    feasible = [c for c in eligible if max_gap is None or c.result.train_val_gap <= max_gap] or eligible
    best = feasible[0]
    error = standard_error(best.result)
    near = [c for c in feasible if c.result.best_val_acc >= best.result.best_val_acc - error]
    winner = min(near, key=lambda c: (c.result.train_val_gap, c.result.parameters, -c.result.best_val_acc, *_size(c)))
    return Selection(
        ranking=ranking,
        pareto=pareto_front(eligible),
        winner=winner,
        standard_error=error,
        reason=_why(winner, best, near, error),
        eligible=tuple(eligible),
        near=tuple(near),
    )


def select_each(candidates: Iterable[Candidate], *, max_gap: float | None = None) -> dict[str, Selection]:
    """Choose among the trials of each architecture by itself; architectures in the order of their names."""
    by_model: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_model.setdefault(candidate.model, []).append(candidate)
    return {model: select(by_model[model], max_gap=max_gap) for model in sorted(by_model)}


def standard_error(result: TrialResult) -> float:
    """The binomial standard error of ``best_val_acc``: sqrt(p (1 - p) / n) over the n validation images."""
    return binomial_error(result.best_val_acc, sum(map(sum, result.confusion_matrix)))


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


def _size(candidate: Candidate) -> tuple[int, str, int, str]:
    # Among equals the smaller model, then the older trial: numbers in names count as numbers.
    trial = candidate.record.trial_id
    return candidate.result.parameters, candidate.sweep, len(trial), trial


def _why(winner: Candidate, best: Candidate, near: Sequence[Candidate], error: float) -> str:
    if len(near) == 1:
        return f"no other trial is within one standard error ({100 * error:.2f} points) of its accuracy"
    others = f"{len(near)} trials within one standard error ({100 * error:.2f} points) of the best accuracy"
    if winner is best:
        return f"the best accuracy, and the smallest gap of {others}"
    return f"the smallest gap of {others}, {100 * best.result.best_val_acc:.2f} % in trial {best.record.trial_id}"
