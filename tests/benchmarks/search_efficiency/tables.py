"""The recorded grids that searches are compared on: what was trained, on which images, and where the curves are."""

import csv
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("curves")
LOGARITHMIC = ("lr", "weight_decay")
"""Parameters whose values are compared by their logarithm, as their distribution in a sweep file spaces them."""


@dataclass(frozen=True)
class Table:
    """A grid of configurations, each with its validation accuracy after every epoch."""

    name: str
    epochs: int
    train: int
    """Images of FER2013's training split, evenly spaced."""
    val: int
    """The same of PublicTest."""
    grid: Mapping[str, Sequence[float]]
    fixed: Mapping[str, Any]
    start: float = 0.0
    """Where the subset begins, in spacings: subsets of different starts share no image."""
    choices: Sequence[str] = field(default=())
    """Parameters that a search draws from their values; it draws the others from the range between the ends."""

    @property
    def path(self) -> Path:
        """The file of curves."""
        return FOLDER / f"{self.name}.csv"

    @functools.cached_property
    def _by_place(self) -> Mapping[tuple[int, ...], tuple[float, ...]]:
        with self.path.open() as stream:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
        return {self.place(row): tuple(row.values())[len(self.grid) :] for row in rows}

    @property
    def curves(self) -> Sequence[tuple[float, ...]]:
        """Accuracies by epoch of every configuration."""
        return list(self._by_place.values())

    @property
    def best(self) -> float:
        """The highest accuracy of all."""
        return max(map(max, self.curves))

    @property
    def target(self) -> float:
        """The best, less one standard error of it."""
        return self.best - math.sqrt(self.best * (1 - self.best) / self.val)

    def curve(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        """Accuracies by epoch of the configuration nearest to ``values``."""
        return self._by_place[self.place(values)]

    def place(self, values: Mapping[str, Any]) -> tuple[int, ...]:
        """The nearest value on each axis of the grid, by its index."""

        def distance(name: str, level: int) -> float:
            scaled = math.log if name in LOGARITHMIC else float
            return abs(scaled(self.grid[name][level]) - scaled(values[name]))

        return tuple(min(range(len(levels)), key=partial(distance, name)) for name, levels in self.grid.items())

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The grid's space as a sweep file writes it."""
        space: dict[str, Mapping[str, Any]] = {}
        for name, levels in self.grid.items():
            if name in self.choices:
                space[name] = {"values": list(levels)}
            else:
                space[name] = {"min": min(levels), "max": max(levels)}
                if name in LOGARITHMIC:
                    space[name] |= {"distribution": "log_uniform_values"}
        return space


TABLES = {
    table.name: table
    for table in (
        Table(
            name="simple_cnn_12",
            epochs=12,
            train=2560,
            val=1024,
            grid={
                "lr": [0.0003, 0.0006, 0.0012, 0.0025, 0.005, 0.01],
                "dropout": [0.0, 0.25, 0.5],
                "channels": [16, 32],
                "hidden": [64, 128, 512],
                "batch_size": [64, 128, 256],
            },
            fixed={"model": "simple_cnn", "weight_decay": 0.0001, "kernel_size": 3}
            | {"augment.shift": 0.05, "augment.rotation": 5.0},
            choices=("channels", "hidden", "batch_size"),
        ),
        Table(
            name="simple_cnn_24",
            epochs=24,
            train=3072,
            val=1536,
            start=0.5,
            grid={
                "lr": [0.0005, 0.001, 0.002, 0.004, 0.008],
                "dropout": [0.1, 0.4],
                "weight_decay": [0.0001, 0.01],
                "channels": [16, 32],
                "batch_size": [64, 256],
            },
            fixed={"model": "simple_cnn", "hidden": 128, "kernel_size": 3}
            | {"augment.shift": 0.0, "augment.rotation": 5.0},
            choices=("channels", "batch_size"),
        ),
        Table(
            name="deeper_cnn_16",
            epochs=16,
            train=2048,
            val=1536,
            start=0.5,
            grid={
                "lr": [0.01, 0.03, 0.1, 0.3],
                "dropout": [0.1, 0.5],
                "label_smoothing": [0.0, 0.2],
                "width": [8, 16],
                "batch_size": [64, 256],
            },
            fixed={"model": "deeper_cnn", "optimizer": "sgd", "weight_decay": 0.0005, "convs_per_block": 1, "blocks": 3}
            | {"augment.shift": 0.1, "augment.rotation": 10.0},
            choices=("width", "batch_size"),
        ),
        Table(
            name="resnet18_12",
            epochs=12,
            train=2048,
            val=1536,
            start=0.25,
            grid={
                "lr": [0.01, 0.03, 0.1, 0.3],
                "weight_decay": [0.0001, 0.002],
                "label_smoothing": [0.0, 0.2],
                "batch_size": [64, 256],
            },
            fixed={"model": "resnet18", "stem": "imagenet", "width": 8, "optimizer": "sgd", "augment.rotation": 10.0},
            choices=("lr", "weight_decay", "label_smoothing", "batch_size"),
        ),
    )
}
