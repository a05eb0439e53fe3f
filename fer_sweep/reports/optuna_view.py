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
from fer_sweep.reports.shown import Axis
from fer_sweep.search.scheduler import quietly

FEWEST_TRIALS = 20
"""Complete trials that an importance needs."""
_FEWEST_BEST = 5
"""Trials among the best that PED-ANOVA needs, by its authors."""
_BEST_SHARE = 0.1

_OUTSIDE = object()
"""None may be a choice."""
Choice = str | bool | int | float | None


def distributions(axes: Sequence[Axis], records: Sequence[TrialRecord]) -> dict[str, BaseDistribution]:
    """Optuna's distribution for every axis; an axis without known values is left out."""
    found = {axis.name: _distribution(axis, records) for axis in axes}
    return {name: distribution for name, distribution in found.items() if distribution is not None}


def coordinates(record: TrialRecord, known: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A trial's parameters in Optuna's form; one outside its distribution is left out."""
    given = ((name, record.parameters[name], known[name]) for name in known if name in record.parameters)
    placed = {name: _placed(value, distribution) for name, value, distribution in given}
    return {name: value for name, value in placed.items() if value is not _OUTSIDE}


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
        (r, r.result)
        for r in records
        if r.state is TrialState.COMPLETE and r.result is not None and r.result.best_epoch > 0
    ]
    if len(axes) < 2:
        return Importance(missing="it takes at least two parameters")
    if len(complete) < FEWEST_TRIALS:
        return Importance(missing=f"it takes {FEWEST_TRIALS} complete trials, and {len(complete)} are complete")
    if len({value(result) for _, result in complete}) < 2:
        return Importance(missing="all trials have the same result")
    return _ped_anova(complete, axes, value, maximize=maximize)


def _ped_anova(
    complete: Sequence[tuple[TrialRecord, TrialResult]],
    axes: Sequence[Axis],
    value: Callable[[TrialResult], float],
    *,
    maximize: bool,
) -> Importance:
    space = distributions(axes, [record for record, _ in complete])
    params = {record.trial_id: coordinates(record, space) for record, _ in complete}
    varied = [
        name
        for name in space
        if all(name in given for given in params.values()) and len({repr(p[name]) for p in params.values()}) > 1
    ]
    if len(varied) < 2:
        return Importance(missing="fewer than two parameters vary over all trials")
    share = max(_BEST_SHARE, _FEWEST_BEST / len(complete))
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the evaluator is experimental
        study = optuna.create_study(direction="maximize" if maximize else "minimize")
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={name: params[record.trial_id][name] for name in varied},
                    distributions={name: space[name] for name in varied},
                    value=value(result),
                )
                for record, result in complete
            ]
        )
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share), params=varied
        )
    if not sum(shares.values()) > 0:
        return Importance(missing="the best trials are spread like all trials")
    return Importance(dict(sorted(shares.items(), key=lambda item: -item[1])))


def _placed(value: Any, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        value = value if _is_listed(value, distribution.choices) else canonical(value)
        return value if _is_listed(value, distribution.choices) else _OUTSIDE
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return value if is_number(value) and distribution.low <= value <= distribution.high else _OUTSIDE


def _is_listed(value: Any, choices: Sequence[Choice]) -> bool:
    # In Python, 1 == True.
    return any(type(value) is type(choice) and value == choice for choice in choices)


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
    distinct = list({canonical(value): value for value in values}.values())
    is_plain = all(value is None or isinstance(value, bool | int | float | str) for value in distinct)
    # Optuna stores only plain scalars, and takes True for 1.
    return distinct if is_plain and len(set(distinct)) == len(distinct) else [canonical(value) for value in distinct]
