"""The search space of a sweep: every parameter by its dotted name, for random draws and grids."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_sweep.config.parameters import Distribution, Nested, Parameter, QUniform
from fer_sweep.config.problems import line_of
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.errors import Problem, SweepFileError

LARGEST_AXIS = 1_000_000
"""Steps of all q_uniform parameters of a grid together; more is a mistake."""


@dataclass(frozen=True)
class Space:
    """Distributions by dotted name, in W&B's order: names sorted at every level of nesting."""

    parameters: Mapping[str, Distribution]

    @classmethod
    def from_sweep(cls, sweep: SweepFile, *, source: str = "sweep", lines: Mapping[str, int] | None = None) -> "Space":
        """The space of a sweep; nested parameters get dotted names.

        Args:
            sweep: The sweep file.
            source: Names the sweep in errors.
            lines: Line of every dotted key, where there is a file.

        Raises:
            SweepFileError: Two parameters have the same dotted name.
        """
        parameters: dict[str, Distribution] = {}
        for name, distribution in _flatten(sweep.parameters or {}):
            if name in parameters:
                message = "given twice: once nested, once with a dotted name"
                key = f"parameters.{name}"
                raise SweepFileError(source, [Problem(message, key=key, line=line_of(key, lines or {}))])
            parameters[name] = distribution
        return cls(parameters)

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """One independent draw of every parameter, by dotted name."""
        return {name: distribution.quantile(rng.random()) for name, distribution in self.parameters.items()}

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every configuration of W&B's grid in W&B's order: the last parameter varies fastest.

        Raises:
            SweepFileError: A parameter has no grid.
        """
        axes = self._axes()
        return ({name: values[name] for name in self.parameters} for values in _product(axes))

    def grid_size(self) -> int:
        """Number of configurations of ``grid``.

        Raises:
            SweepFileError: A parameter has no grid.
        """
        return math.prod(_length(values) for _, values in self._axes())

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
                    problems.append(Problem(message, key=f"parameters.{name}"))
                    continue
            values = distribution.grid_values()
            if values is None:
                problems.append(Problem("has no grid", key=f"parameters.{name}", hint=GRID_HINT))
            else:
                axes.append((name, values))
        if problems:
            raise SweepFileError("sweep", problems)
        return axes


GRID_HINT = "method grid takes value, values, whole min and max, or q_uniform; or take method random"


def _flatten(parameters: Mapping[str, Parameter], prefix: str = "") -> Iterator[tuple[str, Distribution]]:
    for name, form in sorted(parameters.items()):
        if isinstance(form, Nested):
            yield from _flatten(form.parameters, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", form


def _length(values: Sequence[Any]) -> int:
    # len() of a range beyond 2**63 overflows.
    return values.stop - values.start if isinstance(values, range) else len(values)


def _product(axes: Sequence[tuple[str, Sequence[Any]]]) -> Iterator[dict[str, Any]]:
    # itertools.product would first copy every axis, and a range may have billions of values.
    if not axes:
        yield {}
        return
    (name, values), *rest = axes
    for value in values:
        for tail in _product(rest):
            yield {name: value, **tail}
