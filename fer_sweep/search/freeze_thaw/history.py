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
    """The metric after each epoch, of which the best counts; an epoch without a finite value is nan or infinite."""
    second: Sequence[float] = ()
    """The same of the second output, if the search has one; of it the last value counts if ``Output.is_latest``."""
    running_until: int | None = None
    """The epoch its turn ends after, while a slot trains it."""
    is_paused: bool = False
    """It may be resumed."""
    has_failed: bool = False
    """It counts as no better at its end than the worst trial; so does one whose last value is not finite."""
    sweep: int = 0
    """0 for the sweep that is searched. Others are earlier ones, whose trials are complete: their curves are as long as
    they were trained, and their last epoch compares with the last one of this sweep."""


@dataclass(frozen=True)
class Output:
    """How a metric is judged."""

    goal: Goal
    """Which way it is better."""
    is_latest: bool = False
    """The last value of a trial counts, not its best."""
    bound: float | None = None
    """The worst value that is allowed: the output limits the choice, and is no objective."""


@dataclass(frozen=True)
class History:
    """What the process learns from."""

    points: Points
    peaks: Array
    """What each trial is worth so far; nan before its first value, and for one that failed. Shape (trials,)."""
    mean: float
    spread: float
    """Values are standardized with these two, signed so that higher is better."""

    @classmethod
    def of(
        cls,
        observations: Sequence[Observation],
        places: Array,
        ends: Array,
        output: Output,
        below: float = _SPREAD,
    ) -> "History | None":
        """The history of trials; None if no trial of the searched sweep has a finite value.

        Args:
            observations: Of every trial.
            places: Their coordinates, shape (trials, columns).
            ends: Their last epochs, shape (trials,).
            output: How the metric is judged.
            below: See ``_SPREAD``.
        """
        curves = [_worth(seen.curve, output) for seen in observations]
        peaks = np.array([curve[-1] if len(curve) else math.nan for curve in curves])
        sweeps = np.array([seen.sweep for seen in observations], dtype=np.intp)
        if np.isnan(peaks[sweeps == 0]).all():
            return None
        of_sweep = [sweeps == sweep for sweep in range(sweeps.max() + 1)]
        worst = [np.nanmin(peaks[own], initial=math.inf) for own in of_sweep]
        has_failed = [seen.has_failed or not all(map(math.isfinite, seen.curve[-1:])) for seen in observations]
        peaks[has_failed] = math.nan
        # A bound may be anywhere, so that nothing may be moved across it.
        floors = np.array([_floor(peaks[own], lowest, below) for own, lowest in zip(of_sweep, worst, strict=True)])
        floor = floors[sweeps] if output.bound is None else np.full(len(peaks), -math.inf)
        per_curve = 4 if 4 * np.count_nonzero(sweeps == 0) <= _MOST_POINTS else 2
        rows: list[tuple[int, float, float]] = []
        for trial, curve in enumerate(curves):
            if has_failed[trial]:
                rows.append((trial, ends[trial], worst[sweeps[trial]]))
            elif sweeps[trial]:
                pace = ends[trial] / len(curve) if len(curve) else 1.0
                rows.extend((trial, epoch * pace, curve[epoch - 1]) for epoch in _thinned(curve, 3))
            else:
                rows.extend((trial, epoch, curve[epoch - 1]) for epoch in _thinned(curve, per_curve))
        numbers, epochs, values = np.array(rows).T
        trials = numbers.astype(np.intp)
        values = np.maximum(values, floor[trials])
        mean, spread = float(values.mean()), float(values.std()) or 1.0
        points = Points(places, trials, epochs, (values - mean) / spread, sweeps)
        return cls(points, ((np.maximum(peaks, floor) - mean) / spread)[sweeps == 0], mean, spread)

    @property
    def lowest(self) -> float:
        """The lowest value of the searched sweep."""
        own = self.points.sweeps[self.points.trials] == 0
        return float(self.points.values[own].min())

    @property
    def best(self) -> float:
        """The highest value of the searched sweep."""
        return float(np.nanmax(self.peaks, initial=self.lowest))

    def scaled(self, value: float, goal: Goal) -> float:
        """A value of the metric as the process sees it."""
        return ((value if goal == "maximize" else -value) - self.mean) / self.spread

    def sample(self, most: int) -> Points:
        """The points of at most so many trials: half of them the best, the others the newest.

        Of trials of earlier sweeps there are at most half as many more, evenly taken.
        """
        earlier = np.flatnonzero(self.points.sweeps)
        if len(self.peaks) <= most and len(earlier) <= most // 2:
            return self.points
        ranked = np.argsort(-self.peaks, kind="stable")  # nan is last
        newest = np.sort(ranked[most // 2 :])[-(most - most // 2) :]
        if len(earlier) > most // 2:
            earlier = earlier[np.linspace(0, len(earlier) - 1, most // 2).astype(np.intp)]
        return self.points.chosen(np.isin(self.points.trials, [*ranked[: most // 2], *newest, *earlier]))


def _worth(curve: Sequence[float], output: Output) -> Array:
    """What a trial is worth if it ends after each epoch."""
    values = np.asarray(curve, dtype=np.float64) * (1.0 if output.goal == "maximize" else -1.0)
    values = np.where(np.isfinite(values), values, math.nan)
    if not output.is_latest:
        best: Array = np.fmax.accumulate(values)
        return best
    latest = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    return np.asarray(values[latest])


def _floor(peaks: Array, worst: float, below: float) -> float:
    """Values of a sweep below this say no more than that they are low."""
    if np.isnan(peaks).all():
        return worst
    best, middle = float(np.nanmax(peaks)), float(np.nanmedian(peaks))
    return middle - below * (best - middle) if best > middle else worst


def _thinned(curve: Array, most: int) -> list[int]:
    """Epochs of a curve that say most about its end: of four the first, the middle and the last two."""
    length = len(curve)
    kept = {2: {1, length}, 3: {1, math.ceil(length / 2), length}}.get(
        most, {1, math.ceil(length / 2), length - 1, length}
    )
    return sorted(epoch for epoch in kept if 0 < epoch <= length and not math.isnan(curve[epoch - 1]))
