"""W&B's hyperband stopping rule (Li et al. 2018, as the ``sweeps`` package applies it), as pure functions.

A *history* is what one trial logged of the metric, oldest first; values that are not finite are skipped, so an
iteration is the n-th finite value. At each *band*, an iteration number, a trial must be among the best 1/eta of all
trials that reached it, itself and finished ones included.
"""

import math
from collections.abc import Iterable, Sequence

from fer_sweep.config.sweep_file import EarlyTerminate, Goal


def should_stop(
    settings: EarlyTerminate,
    goal: Goal,
    history: Sequence[float],
    histories: Iterable[Sequence[float]],
) -> bool:
    """Whether a running trial should be stopped: it has reached a band and is worse there than the best 1/eta.

    Args:
        settings: The sweep file's ``early_terminate``.
        goal: Which way the metric is better.
        history: Of this trial.
        histories: Of every trial of the sweep, this one and ended ones included.
    """
    own = _losses(history, goal)
    reached = [band for band in settings.bands if band <= len(own)]
    if not reached:
        return False
    band = reached[-1]
    at_band = sorted(losses[band - 1] for losses in (_losses(h, goal) for h in histories) if len(losses) >= band)
    if not at_band:
        return False
    threshold = at_band[int(1.0 / settings.eta * len(at_band))]
    return (own[band - 1] if settings.strict else min(own)) > threshold


def _losses(history: Sequence[float], goal: Goal) -> list[float]:
    sign = -1.0 if goal == "maximize" else 1.0
    return [sign * value for value in history if math.isfinite(value)]
