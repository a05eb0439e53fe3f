"""Whether the best value of a parameter is at the end of its range, so that a better one may lie beyond."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fer_sweep.config.parameters import Categorical, Distribution, IntUniform, LogUniform, Uniform
from fer_sweep.config.trial import flatten, parse_trial
from fer_sweep.config.values import is_number
from fer_sweep.errors import ConfigError

NEXT_TO = 0.05
"""Share of a range, on its own scale: a value this close to an end counts as at the end."""
_BEYOND = 0.1
"""Share of a range: how far beyond its end a value is tried, to check whether training accepts it."""


@dataclass(frozen=True)
class Edge:
    """An end of a parameter's range."""

    name: str
    side: Literal["lower", "upper"]
    low: float
    high: float

    def holds(self, distribution: Distribution, value: Any) -> bool:
        """Whether another trial's value is at the same end."""
        return side_of(distribution, value) == self.side


def edges(parameters: Mapping[str, Distribution], values: Mapping[str, Any], config: Mapping[str, Any]) -> list[Edge]:
    """The ends of ranges that a trial's values are at, where training accepts values beyond them.

    A dropout of 0, for instance, is no reason to widen a range.

    Args:
        parameters: The sweep's space, by dotted name.
        values: The trial's values, by dotted name.
        config: Its whole configuration.
    """
    found = []
    for name, distribution in parameters.items():
        if name == "seed":  # its order has no meaning
            continue
        side = side_of(distribution, values.get(name))
        if side is not None and _accepts_beyond(distribution, side, name, config):
            low, high = _ends(distribution)
            found.append(Edge(name, side, low, high))
    return found


def side_of(distribution: Distribution, value: Any) -> Literal["lower", "upper"] | None:
    """The end that a value is at or near; None for a value inside, or a range without two ends.

    In a list, the smallest and the largest number are the ends. A log-uniform range is measured in logarithms.

    >>> [side_of(LogUniform(min=1e-4, max=1e-2), value) for value in (1.1e-4, 1e-3)]
    ['lower', None]
    >>> side_of(Categorical(values=[64, 128, 256]), 256)
    'upper'
    """
    if not is_number(value):
        return None
    low, high = _ends(distribution)
    if not low < high:
        return None
    if value <= low:
        return "lower"
    if value >= high:
        return "upper"
    if isinstance(distribution, Categorical):
        return None
    if isinstance(distribution, LogUniform) and low > 0:
        share = math.log(value / low) / math.log(high / low)
    else:
        share = (value - low) / (high - low)
    return "lower" if share <= NEXT_TO else "upper" if share >= 1 - NEXT_TO else None


def _ends(distribution: Distribution) -> tuple[float, float]:
    """Smallest and largest value; equal for a single value, for text, and without bounds."""
    match distribution:
        case Categorical():
            numbers = distribution.possible
            return (min(numbers), max(numbers)) if all(is_number(number) for number in numbers) else (0, 0)
        case IntUniform() | Uniform() | LogUniform():
            return distribution.quantile(0.0), distribution.quantile(1.0)
        case _:
            return 0, 0


def _accepts_beyond(distribution: Distribution, side: str, name: str, config: Mapping[str, Any]) -> bool:
    flat = flatten(config)
    for value in _further(distribution, side):
        try:
            parse_trial({**flat, name: value})
        except ConfigError:
            continue
        return True
    return False


def _further(distribution: Distribution, side: str) -> Iterator[float]:
    """Values beyond this end that a wider range could contain."""
    low, high = _ends(distribution)
    end, sign = (high, 1) if side == "upper" else (low, -1)
    if isinstance(distribution, Categorical):
        ordered = sorted(set(distribution.possible), reverse=side == "lower")
        step, factor = end - ordered[-2], end / ordered[-2] if ordered[-2] else 2.0
        candidates = [end + step, end * factor, end * 2.0**sign]
    elif isinstance(distribution, LogUniform) and low > 0:
        candidates = [end * (high / low) ** (sign * _BEYOND)]
    else:
        candidates = [end + sign * _BEYOND * (high - low)]
    whole = isinstance(low, int) and isinstance(high, int)
    for candidate in candidates:
        yield math.ceil(candidate) if whole and sign > 0 else math.floor(candidate) if whole else candidate
