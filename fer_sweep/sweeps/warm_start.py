"""A warm start: what a new sweep takes from the trials of earlier ones.

- Their best configurations are its first trials: the values that it searches are theirs, all others its own.
- Complete trials whose whole configuration could be its own, on the same data, are a prior of its search: it learns
  from their results as from those of its own trials. They count neither as its trials nor towards its cap.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import Metric, SweepFile
from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.errors import ConfigError, InputError
from fer_sweep.formatting import counted
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.search.objective import objective_value
from fer_sweep.search.sampling import fits, given_values, holds
from fer_sweep.store.trials import Picked, Prior
from fer_sweep.sweeps.data import prepared_fingerprint
from fer_sweep.sweeps.entries import pinned_data
from fer_sweep.sweeps.opened import Sweep

FIRST = 5
"""Configurations of earlier sweeps that a new one begins with, at most."""


@dataclass(frozen=True)
class WarmStart:
    """What a new sweep begins with."""

    queue: Sequence[Picked] = ()
    """Its first trials, the best configuration first."""
    priors: Sequence[Prior] = ()
    """What its search learns from."""

    def __str__(self) -> str:
        learnt = f"; its search learns from {counted(len(self.priors), 'earlier trial')}" if self.priors else ""
        return f"begins with {counted(len(self.queue), 'configuration')} of earlier sweeps{learnt}"


def warm_start(file: SweepFile, sources: Sequence[Sweep]) -> WarmStart:
    """What a new sweep of this file takes from earlier ones.

    Raises:
        InputError: Not one of their trials fits the file's space.
    """
    space = Space.from_sweep(file)
    metrics = file.objectives or (Metric(name="best_val_acc", goal="maximize"),)
    ranked: list[list[Picked]] = []
    priors: list[Prior] = []
    for source in sources:
        trials = [_Trial.read(source, record, metrics) for record in source.trials() if _is_complete(record)]
        worth = [(trial.objectives[0], trial) for trial in trials if trial.objectives]
        worth.sort(key=lambda pair: pair[0], reverse=metrics[0].goal == "maximize")
        best = [trial for _, trial in worth if trial.is_sound] or [trial for _, trial in worth]
        ranked.append([found for trial in best if (found := _own(space, trial.picked)) is not None])
        if file.method in ("bayes", "custom"):
            priors += [
                Prior(t.picked, t.objectives, t.gap) for _, t in worth if t.is_on_this_data and fits(space, t.picked)
            ]
    # One of each sweep in turn: results on other data, or of other lengths of training, do not compare.
    first: dict[TrialConfig, Picked] = {}
    for found in itertools.chain.from_iterable(itertools.zip_longest(*ranked)):
        if found is not None:
            first.setdefault(found.config, found)
    if sources and not first:
        names = ", ".join(source.id for source in sources)
        raise InputError(
            f"{names}: no complete trial there fits the space of the new sweep",
            hint="its model and the values it searches must be within the file's: widen them, or take another sweep",
        )
    return WarmStart([*first.values()][: min(FIRST, file.run_cap or FIRST)], priors)


@dataclass(frozen=True)
class _Trial:
    picked: Picked
    objectives: Sequence[float]
    """In each objective of the new sweep; empty if one is unknown."""
    gap: float | None
    is_on_this_data: bool
    is_sound: bool
    """Whether it neither collapsed nor diverged."""

    @classmethod
    def read(cls, sweep: Sweep, record: TrialRecord, metrics: Sequence[Metric]) -> "_Trial":
        reports = sweep.reports(record.trial_id)
        values = [objective_value(metric, reports, record.result) for metric in metrics]
        known = [value for value in values if value is not None]
        config = parse_trial(record.config)
        pin, here = pinned_data(sweep.id, config.data), prepared_fingerprint(config.data)
        return cls(
            Picked(config, record.parameters),
            known if len(known) == len(values) else (),
            record.result.train_val_gap if record.result else None,
            is_on_this_data=pin is None or here is None or pin.fingerprint == here,
            is_sound=record.result is not None and record.result.verdict.may_win,
        )


def _is_complete(record: TrialRecord) -> bool:
    if record.state is not TrialState.COMPLETE or record.result is None or not record.result.best_epoch:
        return False
    try:
        parse_trial(record.config)
    except ConfigError:
        return False  # of a version with other fields or bounds
    return True


def _own(space: Space, picked: Picked) -> Picked | None:
    """The configuration with the values that the space fixes; None if the space cannot give it."""
    given = given_values(picked)
    values = dict(_chosen(space, given))
    if len(values) < len(space.parameters):
        return None
    try:
        config = parse_trial(values)
    except ConfigError:
        return None
    return Picked(config, values) if config.model == picked.config.model else None


def _chosen(space: Space, given: dict[str, object]) -> Iterator[tuple[str, object]]:
    for name, source in space.parameters.items():
        if source.size == 1:
            yield name, source.quantile(0.5)
        elif name in given and holds(source, given[name]):
            yield name, given[name]
