"""Records as Optuna's trials, for the dashboard and for parameter importances.

Importances are PED-ANOVA's (Watanabe, Bansal, Hutter 2023), by Optuna, over the complete trials. It compares where the
best trials lie with where all trials lie. Unlike fANOVA it fits no forest and takes milliseconds for thousands of
trials.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fer_sweep.config.values import canonical, is_number
from fer_sweep.records import TrialRecord, TrialResult, TrialState
from fer_sweep.reports.sources import Axis
from fer_sweep.search.scheduler import quietly

FEWEST_TRIALS = 20
"""Complete trials that an importance needs."""
_FEWEST_BEST = 5
"""Trials among the best that PED-ANOVA needs, by its authors."""
_BEST_SHARE = 0.1

Choice = str | bool | int | float | None


def distributions(axes: Sequence[Axis], records: Sequence[TrialRecord]) -> dict[str, BaseDistribution]:
    """Optuna's distribution for every axis; an axis without known values is left out."""
    found = {axis.name: _distribution(axis, records) for axis in axes}
    return {name: distribution for name, distribution in found.items() if distribution is not None}


def coordinates(record: TrialRecord, known: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A trial's parameters in Optuna's form; one outside its distribution is left out."""
    found = {}
    for name, distribution in known.items():
        value: Any = record.parameters.get(name)
        if isinstance(distribution, CategoricalDistribution):
            value = value if value in distribution.choices else canonical(value)
            if name in record.parameters and value in distribution.choices:
                found[name] = value
            continue
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        if is_number(value) and distribution.low <= value <= distribution.high:
            found[name] = value
    return found


@dataclass(frozen=True)
class Importance:
    """How much each parameter mattered, or why that is unknown."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """By parameter, largest first, summing to 1; empty if unknown."""
    missing: str = ""
    """Why it is unknown."""


def importance(
    records: Sequence[TrialRecord], axes: Sequence[Axis], value: Callable[[TrialResult], float], *, maximize: bool
) -> Importance:
    """How much each parameter mattered for one of the results.

    Args:
        records: Of one sweep.
        axes: Its swept parameters.
        value: The result that the trials are compared by.
        maximize: Whether larger values are better.
    """
    complete = [
        (r, value(r.result))
        for r in records
        if r.state is TrialState.COMPLETE and r.result is not None and r.result.best_epoch > 0
    ]
    if len(axes) < 2:
        return Importance(missing="it takes at least two parameters")
    if len(complete) < FEWEST_TRIALS:
        return Importance(missing=f"it takes {FEWEST_TRIALS} complete trials, and {len(complete)} are complete")
    if len({worth for _, worth in complete}) < 2:
        return Importance(missing="all trials have the same result")
    space = distributions(axes, [record for record, _ in complete])
    given = [coordinates(record, space) for record, _ in complete]
    varied = [n for n in space if all(n in params for params in given) and len({repr(p[n]) for p in given}) > 1]
    if len(varied) < 2:
        return Importance(missing="fewer than two parameters vary over all trials")
    space = {name: space[name] for name in varied}
    trials = [
        optuna.trial.create_trial(params={n: params[n] for n in varied}, distributions=space, value=worth)
        for params, (_, worth) in zip(given, complete, strict=True)
    ]
    share = max(_BEST_SHARE, _FEWEST_BEST / len(complete))
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the evaluator is experimental
        study = optuna.create_study(direction="maximize" if maximize else "minimize")
        study.add_trials(trials)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    if not sum(shares.values()) > 0:
        return Importance(missing="the best trials are spread like all trials")
    return Importance(dict(sorted(shares.items(), key=lambda item: -item[1])))


def _distribution(axis: Axis, records: Sequence[TrialRecord]) -> BaseDistribution | None:
    values = [record.parameters[axis.name] for record in records if axis.name in record.parameters]
    if axis.choices is not None:
        return CategoricalDistribution(_choices(axis.choices))
    if axis.bounds is None and not (values and all(map(is_number, values))):
        return CategoricalDistribution(_choices(values)) if values else None
    low, high = axis.bounds or (min(values), max(values))
    if values and all(isinstance(value, int) for value in values):
        return IntDistribution(round(low), max(round(low), round(high)), log=axis.log and round(low) > 0)
    return FloatDistribution(low, high, log=axis.log and low > 0)


def _choices(values: Sequence[Any]) -> list[Choice]:
    distinct = {canonical(value): value for value in values}
    plain = [v for v in distinct.values() if v is None or isinstance(v, bool | int | float | str)]
    # Optuna stores only plain scalars, and takes True for 1: the others are text.
    return plain if len(set(plain)) == len(distinct) else list(distinct)
