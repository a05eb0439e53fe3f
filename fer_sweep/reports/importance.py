"""How much each parameter mattered: PED-ANOVA (Watanabe, Bansal, Hutter 2023) over the complete trials, by Optuna.

It compares where the best trials lie with where all trials lie. Unlike fANOVA it fits no forest, needs no further
package and takes milliseconds at thousands of trials.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna

from fer_sweep.records import TrialRecord, TrialResult, TrialState
from fer_sweep.reports.optuna_view import coordinates, distributions
from fer_sweep.reports.shown import Axis
from fer_sweep.search.scheduler import quietly

FEWEST_TRIALS = 20
"""Complete trials below which the best ones are too few to say where they lie."""
_FEWEST_BEST = 5
"""PED-ANOVA's authors want at least so many trials among the best."""
_BEST_SHARE = 0.1


@dataclass(frozen=True)
class Importance:
    """What came of asking which parameters mattered."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """Of every parameter, largest first, summing to 1; empty if there is no answer."""
    missing: str = ""
    """Why there is none."""


def importance(
    records: Sequence[TrialRecord], axes: Sequence[Axis], value: Callable[[TrialResult], float], *, maximize: bool
) -> Importance:
    """How much each parameter mattered for one of the results.

    Args:
        records: Of one sweep.
        axes: Its swept parameters.
        value: What the trials are judged by.
        maximize: Whether more of it is better.
    """
    complete = [
        (r, r.result)
        for r in records
        if r.state is TrialState.COMPLETE and r.result is not None and r.result.best_epoch > 0
    ]
    if len(axes) < 2:
        return Importance(missing="there are not two parameters to compare")
    if len(complete) < FEWEST_TRIALS:
        return Importance(missing=f"it takes {FEWEST_TRIALS} complete trials, and there are {len(complete)}")
    if len({value(result) for _, result in complete}) < 2:
        return Importance(missing="all trials came to the same")
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
        return Importance(missing="not two parameters vary over all trials")
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
        return Importance(missing="the best trials lie where all trials lie")
    return Importance(dict(sorted(shares.items(), key=lambda item: -item[1])))
