"""What a new sweep begins with: the defaults, or with a warm start what it takes from the trials of earlier ones.

Without earlier sweeps, a bayes search begins with the defaults of `fersweep train`: the model that a person would train
first, and that the search has to beat. W&B's schema has no key for a parameter's default.

- Their best configurations are its first trials: the values that it searches are theirs, all others its own.
- Complete trials of the same model whose values it searches are a prior of its search. Freeze-thaw learns from their
  curves, on whatever data and for however many epochs they were trained: it fits how far each earlier sweep's level and
  shape agree with its own. TPE learns only from those whose whole configuration could be the new sweep's, on the same
  data, as from trials of its own. They count neither as its trials nor towards its cap.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import Metric, SweepFile
from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.errors import ConfigError, InputError
from fer_sweep.formatting import counted
from fer_sweep.records import TrialState
from fer_sweep.search.method import takes_turns
from fer_sweep.search.objective import objective_value
from fer_sweep.search.outputs import GAP
from fer_sweep.search.sampling import default_trial, fits, within
from fer_sweep.store.queue import Picked, Prior
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


def warm_start(
    file: SweepFile, sources: Sequence[Sweep], *, max_gap: float | None = None, sampler: str | None = None
) -> WarmStart:
    """What a new sweep of this file takes from earlier ones.

    Raises:
        InputError: Not one of their trials fits the file's space.
    """
    space = Space.from_sweep(file)
    if not sources:
        learns = file.method in ("bayes", "custom") and not file.has_own_code
        first_trial = default_trial(space) if learns else None
        return WarmStart([first_trial] if first_trial else [])
    metrics = file.objectives or (Metric(name="best_val_acc", goal="maximize"),)
    ranked: list[list[Picked]] = []
    priors: list[Prior] = []
    learns_levels = takes_turns(file, sampler=sampler, max_gap=max_gap)
    for source in sources:
        trials = [*_complete_trials(source, metrics)]
        trials.sort(key=lambda trial: trial.prior.objectives[0], reverse=metrics[0].goal == "maximize")
        best = [trial for trial in trials if trial.is_sound] or trials
        ranked.append([found for trial in best if (found := within(space, trial.prior.picked)) is not None])
        if file.method in ("bayes", "custom"):
            for trial in trials:
                is_alike = trial.is_on_this_data and fits(space, trial.prior.picked)
                if is_alike or (learns_levels and within(space, trial.prior.picked)):
                    priors.append(replace(trial.prior, is_alike=is_alike))
    # One of each sweep in turn: results on other data, or of other lengths of training, do not compare.
    first: dict[TrialConfig, Picked] = {}
    for found in itertools.chain.from_iterable(itertools.zip_longest(*ranked)):
        if found is not None:
            first.setdefault(found.config, found)
    if not first:
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
                names = {*(metric.name for metric in metrics), "val_acc", GAP}
                curves = {name: [report.get(name, math.nan) for report in reports] for name in sorted(names)}
                pin, here = pinned_data(sweep.id, config.data), prepared_fingerprint(config.data)
                yield _Trial(
                    Prior(
                        Picked(config, record.parameters),
                        known,
                        result.train_val_gap,
                        source=sweep.id,
                        curves=curves if reports else {},
                    ),
                    is_on_this_data=pin is None or here is None or pin.fingerprint == here,
                    is_sound=result.verdict.may_win,
                )
