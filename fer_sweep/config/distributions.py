"""Where one parameter's values come from: a frozen record a distribution, equal to W&B's.

Each has ``quantile(u)``, the inverse of its cumulative distribution over ``u`` in [0, 1]: sampling is
``quantile`` of a uniform draw, and a search without a native form for a distribution may search over ``u``.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fer_sweep.config.continuous import Beta, Continuous, LogNormal, LogUniform, Normal, Sampled, Uniform, is_number
from fer_sweep.config.quantized import QBeta, QLogNormal, QLogUniform, QNormal, QUniform

__all__ = [
    "Beta",
    "Categorical",
    "Constant",
    "Distribution",
    "IntUniform",
    "LogNormal",
    "LogUniform",
    "Normal",
    "QBeta",
    "QLogNormal",
    "QLogUniform",
    "QNormal",
    "QUniform",
    "Uniform",
    "canonical",
]


@dataclass(frozen=True)
class Constant(Sampled):
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
class Categorical(Sampled):
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
class IntUniform(Sampled):
    """Integers from low to high, both included."""

    low: int
    high: int

    def quantile(self, u: float) -> int:
        """The integer whose stretch of the unit interval holds ``u``."""
        return min(self.low + int(u * (self.high - self.low + 1)), self.high)

    def contains(self, value: Any) -> bool:
        """Whether the value is a whole number within the bounds."""
        return is_number(value) and value == int(value) and self.low <= value <= self.high

    @property
    def size(self) -> int:
        """Number of integers."""
        return self.high - self.low + 1

    def grid_values(self) -> Sequence[int]:
        """Every integer, ascending."""
        return range(self.low, self.high + 1)


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
