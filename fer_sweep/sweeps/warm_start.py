"""A warm start: what a new sweep takes from the trials of earlier ones.

- Their best configurations are its first trials: the values that it searches are theirs, all others its own.
- Complete trials whose whole configuration could be its own, on the same data, are a prior of its search: it learns
  from their results as from those of its own trials. They count neither as its trials nor towards its cap.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import Metric, SweepFile
from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.errors import ConfigError, InputError
from fer_sweep.formatting import counted
from fer_sweep.records import TrialState
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
        trials = [*_complete_trials(source, metrics)]
        trials.sort(key=lambda trial: trial.prior.objectives[0], reverse=metrics[0].goal == "maximize")
        best = [trial for trial in trials if trial.is_sound] or trials
        ranked.append([found for trial in best if (found := _own(space, trial.prior.picked)) is not None])
        if file.method in ("bayes", "custom"):
            priors += [t.prior for t in trials if t.is_on_this_data and fits(space, t.prior.picked)]
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
    prior: Prior
    is_on_this_data: bool
    is_sound: bool
    """Whether it neither collapsed nor diverged."""


def _complete_trials(sweep: Sweep, metrics: Sequence[Metric]) -> Iterator[_Trial]:
    """A sweep's complete trials whose worth is known in each objective of the new sweep."""
    for record in sweep.trials():
        result = record.result
        if record.state is not TrialState.COMPLETE or result is None or not result.best_epoch:
            continue
        reports = sweep.reports(record.trial_id)
        objectives = [objective_value(metric, reports, result) for metric in metrics]
        known = [value for value in objectives if value is not None]
        with contextlib.suppress(ConfigError):  # of a version with other fields or bounds
            config = parse_trial(record.config)
            if len(known) == len(objectives):
                pin, here = pinned_data(sweep.id, config.data), prepared_fingerprint(config.data)
                yield _Trial(
                    Prior(Picked(config, record.parameters), known, result.train_val_gap),
                    is_on_this_data=pin is None or here is None or pin.fingerprint == here,
                    is_sound=result.verdict.may_win,
                )


def _own(space: Space, picked: Picked) -> Picked | None:
    """The configuration with the values that the space fixes; None if the space cannot give it."""
    given, values = given_values(picked), {}
    for name, source in space.parameters.items():
        if source.size == 1:
            values[name] = source.quantile(0.5)
        elif name in given and holds(source, given[name]):
            values[name] = given[name]
        else:
            return None
    try:
        config = parse_trial(values)
    except ConfigError:
        return None
    return Picked(config, values) if config.model == picked.config.model else None
