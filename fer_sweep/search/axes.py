"""W&B's distributions as Optuna sees them: native where Optuna has the same one, otherwise the unit interval.

Searching over u in [0, 1] and training with ``quantile(u)`` serves normal, log-normal, beta and all quantized
distributions exactly: a flat prior over u is W&B's prior over the values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fer_sweep.config.parameters import Categorical, Distribution, IntUniform, LogUniform, Quantized, Uniform
from fer_sweep.config.values import canonical
from fer_sweep.search.sampling import unit_of

Coordinate = float | int | str | bool | None
"""A parameter's value as Optuna sees it: the value itself, the index of a category such as a list, or u."""


@dataclass(frozen=True)
class Axis:
    """One parameter that is searched."""

    source: Distribution
    native: BaseDistribution

    def coordinate(self, u: float) -> Coordinate:
        """The coordinate of the source's quantile of ``u``."""
        if isinstance(self.source, Categorical):
            wanted = canonical(self.source.quantile(u))
            index = [canonical(value) for value in self.source.possible].index(wanted)
            return _choices(self.source)[index]
        if _is_range(self.source):
            return cast("float", self.source.quantile(u))
        return u

    def locate(self, value: Any) -> Coordinate:
        """The coordinate of a value that the source can give."""
        if isinstance(self.source, Categorical):
            index = [canonical(possible) for possible in self.source.possible].index(canonical(value))
            return _choices(self.source)[index]
        return value if _is_range(self.source) else unit_of(self.source, value)

    def value(self, coordinate: Coordinate) -> Any:
        """The value to train with."""
        if isinstance(self.source, Categorical):
            return self.source.possible[_choices(self.source).index(coordinate)]
        if _is_range(self.source):
            return coordinate
        return self.source.quantile(cast("float", coordinate))


def axes_of(parameters: Mapping[str, Distribution]) -> dict[str, Axis]:
    """The axes of all parameters with more than one value; a constant is no parameter to Optuna."""
    natives = {name: _native(source) for name, source in parameters.items() if source.size != 1}
    return {name: Axis(parameters[name], native) for name, native in natives.items() if not native.single()}


def _native(source: Distribution) -> BaseDistribution:
    if isinstance(source, Categorical):
        return CategoricalDistribution(_choices(source))
    if isinstance(source, IntUniform):
        return IntDistribution(source.min, source.max)
    if isinstance(source, Uniform | LogUniform) and _is_range(source):
        return FloatDistribution(source.min, source.max, log=isinstance(source, LogUniform))
    return FloatDistribution(0.0, 1.0)


def _is_range(source: Distribution) -> bool:
    """Whether Optuna has the distribution itself."""
    return isinstance(source, IntUniform | Uniform | LogUniform) and not isinstance(source, Quantized)


def _choices(source: Categorical) -> Sequence[Coordinate]:
    # Optuna stores plain scalars only, and cannot tell True from 1.
    values = source.possible
    is_plain = all(value is None or isinstance(value, bool | int | float | str) for value in values)
    return values if is_plain and len(set(values)) == len(values) else range(len(values))
