"""Uncertainty of measured accuracies: standard errors, intervals, and sample sizes to tell two apart. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)
"""95 % of a normal distribution lies within this many standard deviations of its mean."""
MOST_SEEDS = 1000
"""Above this, ``seeds_needed`` returns None."""


@dataclass(frozen=True)
class Mean:
    """The mean of a few measurements with its interval."""

    count: int
    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for a single measurement."""
    low: float | None
    """The lower end of the t-interval; None for a single measurement."""
    high: float | None
    level: float = 0.95
    """The confidence level, if measurements are about normal."""


def binomial_error(p: float, n: int) -> float:
    """The standard error sqrt(p (1 - p) / n) of a share ``p`` of ``n`` images; 0 of none.

    >>> round(binomial_error(0.73, 3589), 4)
    0.0074
    """
    return math.sqrt(p * (1 - p) / n) if n else 0.0


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), which keeps its level close to 0 and 1.

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]

    Args:
        right: Successes.
        n: Trials, at least 1.
    """
    p, square = right / n, Z95**2
    centre = (p + square / (2 * n)) / (1 + square / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + square / (4 * n**2)) / (1 + square / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Mean:
    """The mean of independent measurements with Student's t-interval.

    >>> found = mean_interval([0.60, 0.61, 0.62])
    >>> round(found.mean, 3), round(found.sd, 3), round(found.low, 4), round(found.high, 4)
    (0.61, 0.01, 0.5852, 0.6348)

    Args:
        values: At least one.
        level: In (0, 1).
    """
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Mean(count, mean, None, None, None, level)
    sd = statistics.stdev(values)
    half = t_quantile(0.5 + level / 2, count - 1) * sd / math.sqrt(count)
    return Mean(count, mean, sd, mean - half, mean + half, level)


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution with so many degrees of freedom.

    >>> round(t_quantile(0.975, 4), 3)
    2.776
    """
    from scipy.special import stdtrit  # only here: scipy takes a tenth of a second to import

    return float(stdtrit(freedom, probability))


def t_test(mean: Mean) -> float:
    """The two-sided p-value of a mean of at least two measurements, if the true mean were 0."""
    from scipy.special import stdtr  # only here, as above

    assert mean.sd is not None
    if mean.sd == 0:
        return 1.0 if mean.mean == 0 else 0.0
    return float(2 * stdtr(mean.count - 1, -abs(mean.mean) / (mean.sd / math.sqrt(mean.count))))


def chance_difference(p: float, n: int, q: float, m: int) -> float:
    """The largest difference of shares ``p`` of ``n`` and ``q`` of ``m`` images that chance explains, at 95 %.

    The images count as independent. Two models on the same images have correlated errors, so the true limit is somewhat
    smaller; without the predictions for each image it is unknown.
    """
    return Z95 * math.hypot(binomial_error(p, n), binomial_error(q, m))


def images_needed(p: float, q: float) -> int | None:
    """Validation images at which the difference of two shares would exceed chance; None if they are equal."""
    return None if p == q else math.ceil(Z95**2 * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)


def seeds_needed(p: float, q: float, n: int) -> int | None:
    """Seeds at which the difference of two means over seeds would exceed chance; None above MOST_SEEDS.

    The effect of a seed is unknown beforehand. It is assumed to equal that of the choice of the ``n`` images: three
    seeds of a SimpleCNN of four epochs had a standard deviation of 0.9 points, and this assumes 0.8.
    """
    error = math.hypot(binomial_error(p, n), binomial_error(q, n))
    for count in range(2, MOST_SEEDS + 1):
        if abs(p - q) > t_quantile(0.975, 2 * count - 2) * error / math.sqrt(count):
            return count
    return None
