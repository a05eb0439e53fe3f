"""Records of what a sweep is given beside its search: configurations picked by hand, and trials of other sweeps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fer_sweep.config.trial import TrialConfig, parse_trial_json
from fer_sweep.store.engine import Row


@dataclass(frozen=True)
class Picked:
    """A configuration picked by hand."""

    config: TrialConfig
    parameters: Mapping[str, Any]
    """By dotted name: what was picked, and what the sweep fixes."""

    @classmethod
    def of(cls, row: Row) -> "Picked":
        """The one of a row of ``fersweep_queue`` or ``fersweep_priors``."""
        return cls(parse_trial_json(row["config"]), json.loads(row["parameters"]))

    def columns(self) -> list[Any]:
        """Its values of the columns ``config`` and ``parameters``."""
        return [self.config.model_dump_json(), json.dumps(dict(self.parameters))]


@dataclass(frozen=True)
class Prior:
    """A complete trial of another sweep that the search learns from."""

    picked: Picked
    objectives: Sequence[float]
    """What it is worth in each objective of the sweep that learns."""
    gap: float | None
    """Its train-val gap."""
    source: str = ""
    """Id of its sweep."""
    is_alike: bool = True
    """Its results compare with those of the sweep that learns: same data, and a configuration of the same space."""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Metrics by epoch: the objectives, the gap and the accuracy; empty if only its results are known."""

    @classmethod
    def of(cls, row: Row, version: int) -> "Prior":
        """The one of a row of ``fersweep_priors``, in tables of a version; see ``schema``."""
        prior = cls(Picked.of(row), json.loads(row["objectives"]), row["gap"])
        if version < 4:
            return prior
        return replace(
            prior,
            source=row["source"] or "",  # empty of what version 3 recorded
            is_alike=row["is_alike"] != 0,
            curves=json.loads(row["curves"] or "{}"),
        )

    def columns(self) -> list[Any]:
        """Its values of ``config``, ``parameters``, ``objectives``, ``gap``, ``source``, ``is_alike``, ``curves``."""
        curves = json.dumps({metric: list(curve) for metric, curve in self.curves.items()})
        own = [json.dumps(list(self.objectives)), self.gap, self.source, int(self.is_alike), curves]
        return [*self.picked.columns(), *own]
