"""Configurations as coordinates of a Gaussian process, and back.

A configuration is drawn as a point u of the unit cube, as everywhere in ``search``. Its coordinates are

- of a range, the u of its value: linear in the value, or in its logarithm where the distribution is;
- of numbers in ``values:``, their rank, evenly spaced in [0, 1];
- of other values, one column each, so that any two of them are at distance 1;
- of a parameter that the configuration does not have, the middle; and a column says whether it has it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fer_sweep.config.parameters import Categorical, Distribution, Quantized
from fer_sweep.config.values import canonical, is_number
from fer_sweep.search.freeze_thaw.process import Array
from fer_sweep.search.sampling import unit_of, unit_points

IsActive = Callable[[str, Mapping[str, Any]], bool]


class Encoding:
    """The coordinates of a space.

    Args:
        parameters: Distributions by dotted name.
        is_active: Whether a configuration of these values has the parameter of this name; without it, every one has.
    """

    def __init__(self, parameters: Mapping[str, Distribution], is_active: IsActive | None = None) -> None:
        self._is_active = is_active
        self._axes = {name: _Axis(source) for name, source in parameters.items() if source.size != 1}
        self._constants = {name: source.quantile(0.5) for name, source in parameters.items() if source.size == 1}
        self.sources = {name: axis.source for name, axis in self._axes.items()}
        """The parameters that are searched: those with more than one value."""
        widths = [len(axis.missing) + (is_active is not None) for axis in self._axes.values()]
        self.groups = np.repeat(np.arange(len(widths)), widths)
        """The parameter that each column belongs to, shape (columns,)."""

    def values(self, unit: Array) -> dict[str, Any]:
        """The configuration at a point of the unit cube, shape (parameters,), by dotted name; constants included."""
        drawn = {name: source.quantile(u) for (name, source), u in zip(self.sources.items(), unit, strict=True)}
        drawn |= self._constants
        is_active = self._is_active
        return drawn if is_active is None else {name: v for name, v in drawn.items() if is_active(name, drawn)}

    def unit(self, values: Mapping[str, Any]) -> Array:
        """A point of the unit cube whose configuration this is, or is near to it; shape (parameters,)."""
        return np.array([axis.unit(values[name]) if name in values else 0.5 for name, axis in self._axes.items()])

    def place(self, values: Mapping[str, Any]) -> Array:
        """The coordinates of a configuration, shape (columns,)."""
        columns: list[float] = []
        for name, axis in self._axes.items():
            columns.extend(axis.column(values[name]) if name in values else axis.missing)
            if self._is_active is not None:
                columns.append(float(name in values))
        return np.array(columns)

    def places(self, units: Array) -> Array:
        """The coordinates of the configurations at points of the unit cube: (n, parameters) to (n, columns)."""
        if self._is_active is not None:
            return np.array([self.place(self.values(unit)) for unit in units])
        columns = (axis.columns(u) for axis, u in zip(self._axes.values(), units.T, strict=True))
        return np.hstack([np.empty((len(units), 0)), *columns])


class _Axis:
    """One parameter with more than one value."""

    def __init__(self, source: Distribution) -> None:
        self.source = source
        self._units: dict[str, float] = {}
        """By canonical value: all of a categorical, and those of others that were looked up."""
        self._by_value: dict[str, Array] = {}
        """The column of a categorical, by canonical value."""
        self.missing = np.array([0.5])
        if isinstance(source, Categorical):
            self._units = {canonical(source.quantile(u)): u for u in unit_points(source)}
            values = source.possible
            if all(map(is_number, values)):
                values, columns = tuple(sorted(values)), np.linspace(0, 1, len(values))[:, None]
            else:
                columns = np.eye(len(values)) / np.sqrt(2)  # two rows of the identity are sqrt(2) apart
            self._by_value = {canonical(value): row for value, row in zip(values, columns, strict=True)}
            self.missing = columns.mean(0)

    def column(self, value: Any) -> Array:
        """The coordinates of a value."""
        if isinstance(self.source, Categorical):
            return self._by_value.get(canonical(value), self.missing)
        return np.array([self.unit(value)])

    def columns(self, units: Array) -> Array:
        """The coordinates of the quantiles of ``units``: (n,) to (n, columns)."""
        source = self.source
        if source.size is None and not isinstance(source, Quantized):
            return units[:, None]
        if isinstance(source, Categorical):
            ends = np.cumsum(source.chances)
            drawn = np.searchsorted(ends, units * ends[-1], side="right")
            columns = np.array([self.column(value) for value in source.values])
            return np.asarray(columns[np.minimum(drawn, len(ends) - 1)])
        return np.array([self.column(source.quantile(u)) for u in units.tolist()])

    def unit(self, value: Any) -> float:
        """A u whose quantile is the value; of a value that the source cannot give, the nearer end or the middle."""
        key = canonical(value)
        if key not in self._units:
            is_in_a_range = is_number(value) and not isinstance(self.source, Categorical)
            found = unit_of(self.source, value) if is_in_a_range else 0.5
            self._units[key] = float(value > self.source.quantile(0.5)) if found is None else found
        return self._units[key]
