"""What a turn may gain: of one metric, of one within a limit on another, or of two objectives.

Everything is standardized and higher is better. Predictions are pairs of mean and standard deviation, one for each
output, each of shape (candidates,).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from fer_sweep.search.freeze_thaw.process import Array

Prediction = tuple[Array, Array]


class Acquisition(Protocol):
    """How candidates compare."""

    def gain(self, predictions: Sequence[Prediction]) -> Array:
        """What each candidate is expected to add to what is known; shape (candidates,)."""
        ...

    def worth(self, means: Sequence[Array]) -> Array:
        """How good candidates are that end at these values: new configurations are sought near the best."""
        ...


@dataclass(frozen=True)
class Improvement:
    """Expected improvement of the first output, times the probability that the second is within its bound.

    Both are independent given the points (Gardner et al. 2014, Gelbart et al. 2014).
    """

    best: float
    """What is to be improved on: the highest value within the bound."""
    bound: float | None = None
    """The lowest value that is allowed of the second output; None if there is none."""

    @classmethod
    def within(cls, peaks: Array, lowest: float, seconds: Array, bound: float) -> Self:
        """Over the best of the trials that are expected to end within a bound.

        Args:
            peaks: What each trial is worth so far, nan if nothing; shape (trials,).
            lowest: What is improved on while no trial is within the bound.
            seconds: The second output that each trial is expected to end with, shape (trials,).
            bound: The lowest value that is allowed of it.
        """
        allowed = peaks[(seconds >= bound) & ~np.isnan(peaks)]
        return cls(float(allowed.max(initial=lowest)), bound)

    def gain(self, predictions: Sequence[Prediction]) -> Array:
        """See ``Acquisition.gain``; in standard deviations of the first output."""
        gain = expected_improvement(*predictions[0], self.best)
        if self.bound is not None:
            mean, deviation = predictions[1]
            from scipy.special import ndtr  # only where it computes: scipy takes 0.4 s to import

            gain = gain * ndtr((mean - self.bound) / deviation)
        return gain

    def worth(self, means: Sequence[Array]) -> Array:
        """See ``Acquisition.worth``: those beyond the bound come last, the nearest first."""
        if self.bound is None:
            return means[0]
        beyond = np.maximum(self.bound - means[1], 0.0)
        return np.where(beyond > 0, means[0].min() - beyond, means[0])


@dataclass(frozen=True)
class Hypervolume:
    """Expected improvement of the area that a front of two objectives dominates (Yang et al. 2019)."""

    lefts: Array
    """Where each strip of the plane begins in the first objective, ascending; the last strip has no end. Shape
    (strips,)."""
    tops: Array
    """How high the front is above it in the second objective, shape (strips,)."""

    @classmethod
    def of(cls, values: Array, reference: Array) -> Self:
        """Over the front of trials.

        Args:
            values: Both objectives of each trial, shape (trials, 2); nan where nothing is known.
            reference: The corner that areas are measured from, shape (2,).
        """
        front: list[tuple[float, float]] = []
        for first, second in sorted(map(tuple, values[~np.isnan(values).any(1)]), reverse=True):
            if first > reference[0] and second > max((top for _, top in front), default=reference[1]):
                front.append((first, second))
        front.reverse()
        lefts = [reference[0], *(first for first, _ in front)]
        tops = [*(second for _, second in front), reference[1]]
        return cls(np.array(lefts), np.array(tops))

    def gain(self, predictions: Sequence[Prediction]) -> Array:
        """See ``Acquisition.gain``; exact, in products of standard deviations.

        In a strip from a to b, of height h, a candidate adds (min(y, b) - a)+ (z - h)+ for its objectives y and z. The
        first factor is (y - a)+ - (y - b)+, so that all expectations are those of single objectives.
        """
        (first, first_deviation), (second, second_deviation) = predictions
        widths = expected_improvement(first[:, None], first_deviation[:, None], self.lefts)
        widths[:, :-1] -= widths[:, 1:].copy()
        heights = expected_improvement(second[:, None], second_deviation[:, None], self.tops)
        gain: Array = (widths * heights).sum(1)
        return gain

    def worth(self, means: Sequence[Array]) -> Array:
        """See ``Acquisition.worth``: the area above the corner that each would dominate alone."""
        first, second = means
        area: Array = np.maximum(first - self.lefts[0], 0.0) * np.maximum(second - self.tops[-1], 0.0)
        return area


def expected_improvement(mean: Array, deviation: Array, best: float | Array) -> Array:
    """Over ``best``, of normal distributions (Jones et al. 1998)."""
    z = (mean - best) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    from scipy.special import ndtr  # only here, as above

    gain: Array = deviation * (z * ndtr(z) + density)
    return gain
