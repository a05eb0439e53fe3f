"""What a trial is worth to the search: one number per objective, from its reports and its result. Pure.

- A metric of the result (best_val_acc, train_val_gap, macro_f1, ...) counts with its value there.
- Any other metric (val_loss, images_per_second, ...) counts with the best value of the trial's epochs, as
  W&B's bayes counts it.
- A failed trial, and one whose metric was never finite, counts in a bayes search as ``metric.impute`` says: `worst`
  (the default) of all trials so far, or the `best` or `latest` value that it reported. So a bayes search learns to
  avoid configurations that fail, which Optuna alone does not. (``metric.impute_while_running`` has no effect: Optuna
  spreads its proposals around running trials.)
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from fer_sweep.config.sweep_file import Goal, Metric
from fer_sweep.records import TrialResult

Reports = Sequence[Mapping[str, float]]
"""A trial's metrics by epoch, earliest first."""


def objective_value(metric: Metric, reports: Reports, result: TrialResult | None) -> float | None:
    """What an ended trial is worth in one objective; None if it never had a finite value."""
    if result is not None and result.best_epoch > 0:  # without a finite epoch its zeros mean nothing
        known = result.numbers
        if metric.name in known:
            return known[metric.name] if math.isfinite(known[metric.name]) else None
    return best(finite_values(metric.name, reports), metric.goal)


def imputed_value(metric: Metric, reports: Reports, others: Iterable[float]) -> float | None:
    """What a trial without a value counts as, by ``metric.impute``; None if nothing is known.

    Args:
        metric: The objective.
        reports: Of this trial.
        others: The values of the trials that ended before it.
    """
    own = finite_values(metric.name, reports)
    if metric.impute == "best":
        return best(own, metric.goal)
    if metric.impute == "latest":
        return own[-1] if own else None
    known = list(others)
    return (min(known) if metric.goal == "maximize" else max(known)) if known else None


def finite_values(name: str, reports: Reports) -> list[float]:
    """The finite values of one metric, in order."""
    return [float(report[name]) for report in reports if name in report and math.isfinite(report[name])]


def best(values: Sequence[float], goal: Goal) -> float | None:
    """The best value; None if there are none."""
    if not values:
        return None
    return max(values) if goal == "maximize" else min(values)


def reaches_targets(metrics: Sequence[Metric], values: Sequence[float | None]) -> bool:
    """Whether a trial, worth ``values`` in the objectives, reaches every ``target``; false if there is none."""
    pairs = [(metric, value) for metric, value in zip(metrics, values, strict=True) if metric.target is not None]
    return bool(pairs) and all(_reaches(metric, value) for metric, value in pairs)


def _reaches(metric: Metric, value: float | None) -> bool:
    if metric.target is None or value is None or not math.isfinite(value):
        return False
    return value >= metric.target if metric.goal == "maximize" else value <= metric.target
