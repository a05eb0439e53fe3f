"""Trials as the process sees them: a few points of every curve, standardized, higher is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_sweep.config.sweep_file import Goal
from fer_sweep.search.freeze_thaw.process import Array, Points

_MOST_POINTS = 600
"""Of all curves together, if two of each are not more: a proposal's time grows with their square."""
_SPREAD = 4.0
"""Values farther below the median than this many times the distance of the best above it are raised to there: a loss
that explodes says no more than that it did."""


@dataclass(frozen=True)
class Observation:
    """What is known of one trial."""

    values: Mapping[str, Any]
    """The configuration by dotted name."""
    curve: Sequence[float] = ()
    """The metric after each epoch; an epoch without a finite value is nan or infinite."""
    running_until: int | None = None
    """The epoch its turn ends after, while a slot trains it."""
    is_paused: bool = False
    """It may be resumed."""
    has_failed: bool = False
    """It counts as no better at its end than the worst trial; so does one whose last value is not finite."""


@dataclass(frozen=True)
class History:
    """What the process learns from."""

    points: Points
    peaks: Array
    """The best value of each trial; nan before its first, and for one that failed. Shape (trials,)."""
    spread: float
    """Units of the metric in one unit of the standardized values."""

    @classmethod
    def of(
        cls, observations: Sequence[Observation], places: Array, ends: Array, goal: Goal, below: float = _SPREAD
    ) -> "History | None":
        """The history of trials; None if none has a finite value.

        Args:
            observations: Of every trial.
            places: Their coordinates, shape (trials, columns).
            ends: Their last epochs, shape (trials,).
            goal: Which way the metric is better.
            below: See ``_SPREAD``.
        """
        curves = [_best_so_far(seen.curve, goal) for seen in observations]
        peaks = np.array([curve[-1] if len(curve) else math.nan for curve in curves])
        if np.isnan(peaks).all():
            return None
        worst = np.nanmin(peaks)
        has_failed = [seen.has_failed or not all(map(math.isfinite, seen.curve[-1:])) for seen in observations]
        peaks[has_failed] = math.nan
        best, middle = (worst, worst) if np.isnan(peaks).all() else (np.nanmax(peaks), np.nanmedian(peaks))
        floor = middle - below * (best - middle) if best > middle else worst
        per_curve = 4 if 4 * len(curves) <= _MOST_POINTS else 2
        rows: list[tuple[int, float, float]] = []
        for trial, curve in enumerate(curves):
            if has_failed[trial]:
                rows.append((trial, ends[trial], worst))
            else:
                rows.extend((trial, epoch, curve[epoch - 1]) for epoch in _thinned(curve, per_curve))
        trials, epochs, values = np.array(rows).T
        values = np.maximum(values, floor)
        mean, spread = values.mean(), float(values.std()) or 1.0
        points = Points(places, trials.astype(np.intp), epochs, (values - mean) / spread)
        return cls(points, (np.maximum(peaks, floor) - mean) / spread, spread)

    @property
    def best(self) -> float:
        """The highest value of all."""
        return float(np.nanmax(self.peaks, initial=self.points.values.min()))

    def sample(self, most: int) -> Points:
        """The points of at most so many trials: half of them the best, the others the newest."""
        if len(self.peaks) <= most:
            return self.points
        ranked = np.argsort(-self.peaks, kind="stable")  # nan is last
        newest = np.sort(ranked[most // 2 :])[-(most - most // 2) :]
        return self.points.chosen(np.isin(self.points.trials, [*ranked[: most // 2], *newest]))


def _best_so_far(curve: Sequence[float], goal: Goal) -> Array:
    values = np.asarray(curve, dtype=np.float64) * (1.0 if goal == "maximize" else -1.0)
    best: Array = np.fmax.accumulate(np.where(np.isfinite(values), values, math.nan))
    return best


def _thinned(curve: Array, most: int) -> list[int]:
    """Epochs of a curve that say most about its end: the first, the middle and the last two; or the first and last."""
    length = len(curve)
    kept = {1, length} if most == 2 else {1, math.ceil(length / 2), length - 1, length}
    return sorted(epoch for epoch in kept if 0 < epoch <= length and not math.isnan(curve[epoch - 1]))
