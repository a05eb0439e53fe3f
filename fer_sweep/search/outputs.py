"""What freeze-thaw is told of a sweep's trials: the curves of its objectives, of the gap, and of earlier sweeps."""

import math
from collections.abc import Mapping, Sequence

from fer_sweep.config.metrics import EPOCH_METRICS
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.search.freeze_thaw.history import Observation, Output
from fer_sweep.search.sampling import within
from fer_sweep.store.caches import Histories
from fer_sweep.store.queue import Prior
from fer_sweep.store.trials import Ledger

GAP = "train_val_gap"
_ACCURACY = "val_acc"
_AT_BEST = ("train_acc", GAP)
"""Metrics of which a trial's value is that of the epoch with the best validation accuracy; of the others it is the best
of all epochs. See ``search.objective``."""


def outputs_of(sweep: SweepFile, *, max_gap: float | None) -> Mapping[str, Output]:
    """The metrics that freeze-thaw follows, one or two; none if it cannot search by the objectives of this sweep."""
    outputs = {metric.name: Output(metric.goal, metric.name in _AT_BEST) for metric in sweep.objectives}
    if max_gap is not None:
        outputs[GAP] = Output("minimize", is_latest=True, bound=max_gap)
    ordered = dict(sorted(outputs.items(), key=lambda item: item[1].is_latest))
    has_curves = set(ordered) <= set(EPOCH_METRICS) and len(ordered) in (1, 2)
    return ordered if has_curves and not next(iter(ordered.values())).is_latest else {}


class Curves:
    """The curves of one sweep's trials, as its agents report them.

    Args:
        outputs: What is followed.
        known: The values of one metric, which are read anyway.
        metric: Its name.
    """

    def __init__(self, outputs: Mapping[str, Output], known: Histories, metric: str) -> None:
        self._names = tuple(outputs)
        needed = {*self._names, *([_ACCURACY] if {*self._names} & {*_AT_BEST} else [])} - {metric}
        self._histories = {metric: known, **{name: Histories(name) for name in sorted(needed)}}

    def update(self, ledger: Ledger) -> None:
        """Read what is new."""
        for history in self._histories.values():
            history.update(ledger)

    def of(self, number: int) -> tuple[Sequence[float], Sequence[float]]:
        """Of one trial, the curves of both outputs; the second is empty if there is one only."""
        return _pair(self._names, {name: history.of(number) for name, history in self._histories.items()})


def earlier_observations(
    priors: Sequence[Prior], space: Space, outputs: Mapping[str, Output], objectives: Sequence[str]
) -> Sequence[Observation]:
    """Trials of earlier sweeps as freeze-thaw learns from them; those with values that the space lacks are left out.

    Args:
        priors: The trials.
        space: What the present sweep searches. The trials count as if they had the values that it fixes.
        outputs: What is followed.
        objectives: Names of the sweep's objectives, in the order of ``Prior.objectives``.
    """
    sweeps: dict[str, int] = {}
    found = []
    for prior in priors:
        picked = within(space, prior.picked)
        if picked is None:
            continue
        curves = prior.curves
        if not curves:  # recorded by an earlier version: only its results are known
            unknown = [math.nan] * (prior.picked.config.epochs - 1)
            results = {**dict(zip(objectives, prior.objectives, strict=True)), GAP: prior.gap}
            curves = {name: [*unknown, value] for name, value in results.items() if value is not None}
        first, second = _pair(tuple(outputs), curves)
        if first:
            sweep = sweeps.setdefault(prior.source, len(sweeps) + 1)
            found.append(Observation(picked.parameters, first, second, sweep=sweep))
    return found


def _pair(names: Sequence[str], curves: Mapping[str, Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
    accuracies = curves.get(_ACCURACY, ())
    chosen = [
        _at_best(curves.get(name, ()), accuracies) if name in _AT_BEST and accuracies else curves.get(name, ())
        for name in names
    ]
    return chosen[0], chosen[1] if len(chosen) > 1 else ()


def _at_best(values: Sequence[float], accuracies: Sequence[float]) -> Sequence[float]:
    """After each epoch, the value of the epoch with the best accuracy so far.

    >>> _at_best([0.0, 0.1, 0.3], [0.5, 0.6, 0.55])
    [0.0, 0.1, 0.1]
    """
    best, latest, found = -math.inf, math.nan, []
    for value, accuracy in zip(values, accuracies, strict=False):  # a running trial may report between two reads
        if accuracy > best:
            best, latest = accuracy, value
        found.append(latest)
    return found
