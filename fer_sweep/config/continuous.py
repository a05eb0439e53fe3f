"""Distributions over the real numbers, each a frozen record, and what every distribution shares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

_NEAREST = 1e-12
"""Tails are cut here, the normal's at 7 standard deviations, so that every u gives a finite value."""
TOLERANCE = 1e-9
"""Relative; a value that went through JSON or a product with q is still the same value."""


class Sampled:
    """What every distribution shares: sampling by its quantile function."""

    def quantile(self, u: float) -> Any:
        """The value below which a draw falls with probability ``u``, in [0, 1]."""
        raise NotImplementedError

    def sample(self, rng: np.random.Generator) -> Any:
        """One independent draw, as a plain Python value."""
        return self.quantile(rng.random())

    @property
    def size(self) -> int | None:
        """Number of distinct values; None where there is no end of them."""
        return None

    def grid_values(self) -> Sequence[Any] | None:
        """W&B's values for a grid search, in order; None if the distribution has no grid."""
        return None


@dataclass(frozen=True)
class Uniform(Sampled):
    """Real numbers from low to high."""

    low: float
    high: float

    def quantile(self, u: float) -> float:
        """Linear in ``u``."""
        return min(max(float(self.low + u * (self.high - self.low)), self.low), self.high)

    def contains(self, value: Any) -> bool:
        """Whether the value lies within the bounds."""
        return is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class LogUniform(Sampled):
    """Real numbers from low to high whose logarithm is uniform; W&B's inverse form is the same."""

    low: float
    high: float

    def quantile(self, u: float) -> float:
        """Linear in ``u`` on the log scale."""
        exponent = math.log(self.low) + u * (math.log(self.high) - math.log(self.low))
        return min(max(math.exp(exponent), float(self.low)), float(self.high))

    def contains(self, value: Any) -> bool:
        """Whether the value lies within the bounds."""
        return is_number(value) and self.low * (1 - TOLERANCE) <= value <= self.high * (1 + TOLERANCE)


@dataclass(frozen=True)
class Normal(Sampled):
    """The normal distribution; the whole real line."""

    mu: float = 0.0
    sigma: float = 1.0

    def quantile(self, u: float) -> float:
        """Cut at seven standard deviations."""
        return self.mu + self.sigma * NormalDist().inv_cdf(min(max(u, _NEAREST), 1 - _NEAREST))

    def contains(self, value: Any) -> bool:
        """Whether the value is a finite number."""
        return is_number(value)


@dataclass(frozen=True)
class LogNormal(Sampled):
    """Positive numbers whose logarithm is normal."""

    mu: float = 0.0
    sigma: float = 1.0

    def quantile(self, u: float) -> float:
        """The exponential of the normal's quantile; infinite where that is too large for a float."""
        try:
            return math.exp(Normal(self.mu, self.sigma).quantile(u))
        except OverflowError:
            return math.inf

    def contains(self, value: Any) -> bool:
        """Whether the value is a positive number."""
        return is_number(value) and value > 0


@dataclass(frozen=True)
class Beta(Sampled):
    """The beta distribution on [0, 1]."""

    a: float = 1.0
    b: float = 1.0

    def quantile(self, u: float) -> float:
        """The inverse of the regularised incomplete beta function."""
        from scipy.special import betaincinv  # only here: scipy takes a tenth of a second to import

        return float(betaincinv(self.a, self.b, min(max(u, _NEAREST), 1 - _NEAREST)))

    def contains(self, value: Any) -> bool:
        """Whether the value lies in [0, 1]."""
        return is_number(value) and 0 <= value <= 1


Continuous = Uniform | LogUniform | Normal | LogNormal | Beta


def is_number(value: Any) -> bool:
    """Whether it is a finite number, which True is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
