"""The search space of a sweep: every parameter by its dotted name, for random draws and grids."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fer_sweep.config.parameters import Distribution, Nested, Parameter, QUniform, length
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.errors import Problem, SweepFileError

LARGEST_AXIS = 1_000_000
"""Steps of all q_uniform parameters of a grid together; more is a mistake."""
_GRID_HINT = "method grid takes value, values, whole min and max, or q_uniform; or take method random"


@dataclass(frozen=True)
class Space:
    """Distributions by dotted name, in W&B's order: names sorted at every level of nesting."""

    parameters: Mapping[str, Distribution]
    keys: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The dotted key of each parameter in the sweep file."""

    @classmethod
    def from_sweep(cls, sweep: SweepFile) -> "Space":
        """The space of a sweep; nested parameters get dotted names.

        Raises:
            SweepFileError: Two parameters have the same dotted name.
        """
        parameters: dict[str, Distribution] = {}
        keys: dict[str, str] = {}
        for name, key, distribution in _flatten(sweep.parameters or {}):
            if name in parameters:
                raise SweepFileError("sweep", [Problem("given twice: once nested, once with a dotted name", key=key)])
            parameters[name], keys[name] = distribution, key
        return cls(parameters, keys)

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """One independent draw of every parameter, by dotted name."""
        return {name: distribution.quantile(rng.random()) for name, distribution in self.parameters.items()}

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every configuration of W&B's grid in W&B's order: the last parameter varies fastest.

        Raises:
            SweepFileError: A parameter has no grid.
        """
        return _product(self._axes())

    def grid_size(self) -> int:
        """Number of configurations of ``grid``, which raises the same."""
        return math.prod(length(values) for _, values in self._axes())

    def size(self) -> int | None:
        """Number of distinct configurations that sampling can give; None if it is infinite."""
        sizes = [distribution.size for distribution in self.parameters.values()]
        finite = [size for size in sizes if size is not None]
        return math.prod(finite) if len(finite) == len(sizes) else None

    def _axes(self) -> list[tuple[str, Sequence[Any]]]:
        axes, problems = [], []
        room = float(LARGEST_AXIS)
        for name, distribution in self.parameters.items():
            if isinstance(distribution, QUniform):
                room -= distribution.steps
                if room < 0:
                    message = f"a grid of {distribution.steps:.3g} steps is too fine"
                    problems.append(Problem(message, key=self.keys[name]))
                    continue
            values = distribution.grid_values()
            if values is None:
                problems.append(Problem("has no grid", key=self.keys[name], hint=_GRID_HINT))
            else:
                axes.append((name, values))
        if problems:
            raise SweepFileError("sweep", problems)
        return axes


def _flatten(
    parameters: Mapping[str, Parameter], prefix: str = "", above: str = "parameters."
) -> Iterator[tuple[str, str, Distribution]]:
    """Each parameter's dotted name, its dotted key in the file and its distribution."""
    for name, form in sorted(parameters.items()):
        if isinstance(form, Nested):
            yield from _flatten(form.parameters, f"{prefix}{name}.", f"{above}{name}.parameters.")
        else:
            yield f"{prefix}{name}", f"{above}{name}", form


def _product(axes: Sequence[tuple[str, Sequence[Any]]]) -> Iterator[dict[str, Any]]:
    # itertools.product would first copy every axis, and a range may have billions of values.
    if not axes:
        yield {}
        return
    (name, values), *rest = axes
    for value in values:
        for tail in _product(rest):
            yield {name: value, **tail}
