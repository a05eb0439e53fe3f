"""The distributions over multiples of a step q: another one's draw, rounded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_sweep.config.continuous import (
    TOLERANCE,
    Beta,
    Continuous,
    LogNormal,
    LogUniform,
    Normal,
    Sampled,
    Uniform,
    is_number,
)


class _Quantized(Sampled):
    """round(x / q) * q of another distribution; may leave that one's bounds. Integers where q is one."""

    q: float

    def _base(self) -> Continuous:
        raise NotImplementedError

    def quantile(self, u: float) -> int | float:
        """The nearest multiple of q to the underlying quantile; ties go to the even multiple."""
        value = self._base().quantile(u)
        multiple = _nearest(value / self.q)
        return value if multiple is None else multiple * self.q

    def contains(self, value: Any) -> bool:
        """Whether the value is a multiple of q between the roundings of the bounds."""
        if not is_number(value):
            return False
        multiple = _nearest(value / self.q)
        if multiple is None:
            return False
        near = math.isclose(value, multiple * self.q, rel_tol=TOLERANCE, abs_tol=TOLERANCE * self.q)
        low, high = self._multiples()
        return near and (low is None or low <= multiple) and (high is None or multiple <= high)

    @property
    def size(self) -> int | None:
        """Number of multiples of q; None if unbounded."""
        low, high = self._multiples()
        return None if low is None or high is None else high - low + 1

    def _multiples(self) -> tuple[int | None, int | None]:
        base = self._base()
        if isinstance(base, Normal):
            return None, None
        if isinstance(base, LogNormal):
            return 0, None
        low, high = (0.0, 1.0) if isinstance(base, Beta) else (base.low, base.high)
        return _nearest(low / self.q), _nearest(high / self.q)


@dataclass(frozen=True)
class QUniform(_Quantized):
    """Multiples of q, by rounding a uniform draw."""

    low: float
    high: float
    q: float = 1.0

    def _base(self) -> Uniform:
        return Uniform(self.low, self.high)

    @property
    def steps(self) -> float:
        """How many values its grid has, about."""
        return (self.high - self.low) / self.q

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


@dataclass(frozen=True)
class QNormal(_Quantized):
    """Multiples of q, by rounding a normal draw."""

    mu: float = 0.0
    sigma: float = 1.0
    q: float = 1.0

    def _base(self) -> Normal:
        return Normal(self.mu, self.sigma)


@dataclass(frozen=True)
class QLogNormal(_Quantized):
    """Multiples of q, by rounding a log-normal draw."""

    mu: float = 0.0
    sigma: float = 1.0
    q: float = 1.0

    def _base(self) -> LogNormal:
        return LogNormal(self.mu, self.sigma)


@dataclass(frozen=True)
class QBeta(_Quantized):
    """Multiples of q, by rounding a beta draw."""

    a: float = 1.0
    b: float = 1.0
    q: float = 1.0

    def _base(self) -> Beta:
        return Beta(self.a, self.b)


def _nearest(ratio: float) -> int | None:
    # None where it is infinite: a logarithm's end, or a q too small to divide by.
    return round(ratio) if math.isfinite(ratio) else None
