"""Where one parameter's values come from: a frozen record a distribution, equal to W&B's.

Each has ``quantile(u)``, the inverse of its cumulative distribution over ``u`` in [0, 1]: sampling is
``quantile`` of a uniform draw, and a search without a native form for a distribution may search over ``u``.
"""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

_NEAREST = 1e-12
"""Tails are cut here, the normal's at 7 standard deviations, so that every u gives a finite value."""
_TOLERANCE = 1e-9
"""Relative; a value that went through JSON or a product with q is still the same value."""


class _Sampled:
    """What every distribution shares: sampling by its quantile function."""

    def quantile(self, u: float) -> Any:
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
class Constant(_Sampled):
    """Always the same value."""

    value: Any

    def quantile(self, u: float) -> Any:
        """The value."""
        return self.value

    def contains(self, value: Any) -> bool:
        """Whether it is the value."""
        return canonical(value) == canonical(self.value)

    @property
    def size(self) -> int:
        """One."""
        return 1

    def grid_values(self) -> Sequence[Any]:
        """The value alone."""
        return (self.value,)


@dataclass(frozen=True)
class Categorical(_Sampled):
    """One of several values, each equally likely or with its own probability."""

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None
    """As many as values, summing to 1."""

    def quantile(self, u: float) -> Any:
        """The value whose stretch of the unit interval holds ``u``."""
        if self.probabilities is None:
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        ends = list(itertools.accumulate(self.probabilities))
        index = min(bisect.bisect_right(ends, u * ends[-1]), len(self.values) - 1)
        while not self.probabilities[index]:  # u = 1 lands behind the last value that can occur
            index -= 1
        return self.values[index]

    def contains(self, value: Any) -> bool:
        """Whether the value is listed, with a probability above zero."""
        return canonical(value) in {canonical(known) for known in self.possible}

    @property
    def possible(self) -> tuple[Any, ...]:
        """The values that can occur, in order, duplicates (1 and 1.0) once."""
        chances = self.probabilities or (1.0,) * len(self.values)
        distinct: dict[str, Any] = {}
        for value, chance in zip(self.values, chances, strict=True):
            if chance > 0:
                distinct.setdefault(canonical(value), value)
        return tuple(distinct.values())

    @property
    def size(self) -> int:
        """Number of distinct values that can occur."""
        return len(self.possible)

    def grid_values(self) -> Sequence[Any] | None:
        """The distinct values; W&B has no grid over weighted ones."""
        return self.possible if self.probabilities is None else None


@dataclass(frozen=True)
class IntUniform(_Sampled):
    """Integers from low to high, both included."""

    low: int
    high: int

    def quantile(self, u: float) -> int:
        """The integer whose stretch of the unit interval holds ``u``."""
        return min(self.low + int(u * (self.high - self.low + 1)), self.high)

    def contains(self, value: Any) -> bool:
        """Whether the value is a whole number within the bounds."""
        return _is_number(value) and value == int(value) and self.low <= value <= self.high

    @property
    def size(self) -> int:
        """Number of integers."""
        return self.high - self.low + 1

    def grid_values(self) -> Sequence[int]:
        """Every integer, ascending."""
        return range(self.low, self.high + 1)


@dataclass(frozen=True)
class Uniform(_Sampled):
    """Real numbers from low to high."""

    low: float
    high: float

    def quantile(self, u: float) -> float:
        """Linear in ``u``."""
        return min(max(float(self.low + u * (self.high - self.low)), self.low), self.high)

    def contains(self, value: Any) -> bool:
        """Whether the value lies within the bounds."""
        return _is_number(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class LogUniform(_Sampled):
    """Real numbers from low to high whose logarithm is uniform; W&B's inverse form is the same."""

    low: float
    high: float

    def quantile(self, u: float) -> float:
        """Linear in ``u`` on the log scale."""
        exponent = math.log(self.low) + u * (math.log(self.high) - math.log(self.low))
        return min(max(math.exp(exponent), float(self.low)), float(self.high))

    def contains(self, value: Any) -> bool:
        """Whether the value lies within the bounds."""
        return _is_number(value) and self.low * (1 - _TOLERANCE) <= value <= self.high * (1 + _TOLERANCE)


@dataclass(frozen=True)
class Normal(_Sampled):
    """The normal distribution; the whole real line."""

    mu: float = 0.0
    sigma: float = 1.0

    def quantile(self, u: float) -> float:
        """Cut at seven standard deviations."""
        return self.mu + self.sigma * NormalDist().inv_cdf(min(max(u, _NEAREST), 1 - _NEAREST))

    def contains(self, value: Any) -> bool:
        """Whether the value is a finite number."""
        return _is_number(value)


@dataclass(frozen=True)
class LogNormal(_Sampled):
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
        return _is_number(value) and value > 0


@dataclass(frozen=True)
class Beta(_Sampled):
    """The beta distribution on [0, 1]."""

    a: float = 1.0
    b: float = 1.0

    def quantile(self, u: float) -> float:
        """The inverse of the regularised incomplete beta function."""
        from scipy.special import betaincinv  # only here: scipy takes a tenth of a second to import

        return float(betaincinv(self.a, self.b, min(max(u, _NEAREST), 1 - _NEAREST)))

    def contains(self, value: Any) -> bool:
        """Whether the value lies in [0, 1]."""
        return _is_number(value) and 0 <= value <= 1


Continuous = Uniform | LogUniform | Normal | LogNormal | Beta


@dataclass(frozen=True)
class _Quantized(_Sampled):
    """round(x / q) * q of another distribution; may leave that one's bounds. Integers where q is one."""

    def _base(self) -> Continuous:
        raise NotImplementedError

    def _step(self) -> float:
        raise NotImplementedError

    def quantile(self, u: float) -> int | float:
        """The nearest multiple of q to the underlying quantile; ties go to the even multiple."""
        value = self._base().quantile(u)
        return round(value / self._step()) * self._step() if math.isfinite(value) else value

    def contains(self, value: Any) -> bool:
        """Whether the value is a multiple of q between the roundings of the bounds."""
        if not _is_number(value):
            return False
        multiple = round(value / self._step())
        near = math.isclose(value, multiple * self._step(), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE * self._step())
        low, high = self._multiples()
        return near and low <= multiple <= high

    @property
    def size(self) -> int | None:
        """Number of multiples of q; None if unbounded."""
        low, high = self._multiples()
        return int(high - low) + 1 if math.isfinite(high - low) else None

    def _multiples(self) -> tuple[float, float]:
        base, step = self._base(), self._step()
        if isinstance(base, Normal):
            return -math.inf, math.inf
        if isinstance(base, LogNormal):
            return 0, math.inf
        low, high = (0.0, 1.0) if isinstance(base, Beta) else (base.low, base.high)
        return round(low / step), round(high / step)


@dataclass(frozen=True)
class QUniform(_Quantized):
    """Multiples of q, by rounding a uniform draw."""

    low: float
    high: float
    q: float = 1.0

    def _base(self) -> Uniform:
        return Uniform(self.low, self.high)

    def _step(self) -> float:
        return self.q

    def grid_values(self) -> Sequence[int | float]:
        """From low in steps of q, high excluded: W&B's grid, which is not what sampling gives."""
        values: list[int | float] = np.arange(self.low, self.high, self.q).tolist()
        return values


@dataclass(frozen=True)
class QLogUniform(_Quantized):
    """Multiples of q, by rounding a log-uniform draw."""

    low: float
    high: float
    q: float = 1.0

    def _base(self) -> LogUniform:
        return LogUniform(self.low, self.high)

    def _step(self) -> float:
        return self.q


@dataclass(frozen=True)
class QNormal(_Quantized):
    """Multiples of q, by rounding a normal draw."""

    mu: float = 0.0
    sigma: float = 1.0
    q: float = 1.0

    def _base(self) -> Normal:
        return Normal(self.mu, self.sigma)

    def _step(self) -> float:
        return self.q


@dataclass(frozen=True)
class QLogNormal(_Quantized):
    """Multiples of q, by rounding a log-normal draw."""

    mu: float = 0.0
    sigma: float = 1.0
    q: float = 1.0

    def _base(self) -> LogNormal:
        return LogNormal(self.mu, self.sigma)

    def _step(self) -> float:
        return self.q


@dataclass(frozen=True)
class QBeta(_Quantized):
    """Multiples of q, by rounding a beta draw."""

    a: float = 1.0
    b: float = 1.0
    q: float = 1.0

    def _base(self) -> Beta:
        return Beta(self.a, self.b)

    def _step(self) -> float:
        return self.q


Distribution = Constant | Categorical | IntUniform | Continuous | QUniform | QLogUniform | QNormal | QLogNormal | QBeta


def canonical(value: Any) -> str:
    """Text that is equal for values that mean the same: 1 and 1.0, keys in any order; but True is not 1.

    >>> canonical({"b": 1.0, "a": [True]}) == canonical({"a": [True], "b": 1})
    True
    >>> canonical(True) == canonical(1)
    False
    """
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{canonical(key)}:{canonical(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))
    return repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
