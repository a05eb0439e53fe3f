"""The recorded curves, looked up by the nearest configuration."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.search_efficiency.record import CURVES, GRID

Place = tuple[int, ...]
"""Index of a configuration's value on each axis of the grid, in its order."""


@dataclass(frozen=True)
class Table:
    """Validation accuracies by epoch, of every configuration of the grid."""

    by_place: Mapping[Place, tuple[float, ...]]

    @classmethod
    def read(cls) -> "Table":
        """Read ``curves.csv``."""
        with CURVES.open() as stream:
            rows = list(csv.DictReader(stream))
        curves = {place({name: float(row[name]) for name in GRID}): list(row.values())[len(GRID) :] for row in rows}
        return cls({at: tuple(map(float, curve)) for at, curve in curves.items()})

    @property
    def curves(self) -> Sequence[tuple[float, ...]]:
        """All of them."""
        return list(self.by_place.values())

    @property
    def best(self) -> float:
        """The highest accuracy of all."""
        return max(max(curve) for curve in self.curves)

    def curve(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        """The curve of the nearest configuration."""
        return self.by_place[place(values)]


def place(values: Mapping[str, Any]) -> Place:
    """Where a configuration's nearest neighbour stands; learning rates are compared by their logarithm.

    >>> place({"lr": 0.0005, "dropout": 0.3, "channels": 32, "hidden": 64, "batch_size": 128})
    (1, 1, 1, 0, 1)
    """
    return tuple(
        min(range(len(levels)), key=lambda level: abs(_scaled(name, levels[level]) - _scaled(name, values[name])))
        for name, levels in GRID.items()
    )


def _scaled(name: str, value: float) -> float:
    return math.log(value) if name == "lr" else value
