"""What another hour of training is expected to gain, in words for ``status`` and reports."""

from collections.abc import Sequence

from fer_sweep.formatting import counted, duration
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.sweeps.opened import Sweep

_HOUR_S = 3600.0
_FEWEST_TRIALS = 6
"""Nothing is said of a sweep with fewer."""


def expectation(sweep: Sweep, records: Sequence[TrialRecord]) -> str | None:
    """What another hour is expected to gain, but no more epochs than are trained; None for a sweep that has just begun.

    Args:
        sweep: The sweep.
        records: Its trials.
    """
    if len(records) < _FEWEST_TRIALS:
        return None
    # Only here: scipy takes a third of a second to import.
    from fer_sweep.search.convergence import LEAST_CHANCE, WHOLE_TRIALS, is_converged
    from fer_sweep.search.method import sampler_of
    from fer_sweep.search.worth import ACCURACIES, Worth, is_predictable
    from fer_sweep.store.caches import Histories

    settings, file = sweep.settings(), sweep.file  # read in transactions of their own
    takes = not sweep.searched_by_server and sampler_of(file, settings) == "freeze_thaw"
    unknown = "expected gain of further training: unknown"
    if not is_predictable(file):
        return f"{unknown}, since that takes one objective that is reported each epoch, and a space in the sweep file"
    metric = file.objectives[0].name
    histories = Histories(metric)
    with sweep.ledger() as ledger:
        histories.update(ledger)
        worth = Worth(file, histories, seed=settings.seed, takes_turns=takes)
        found, error = worth.predict(ledger), worth.standard_error(ledger)
    if found is None:
        return f"{unknown} until {counted(WHOLE_TRIALS, 'trial')} are trained to their last epoch"
    epoch_s = _epoch_s(records)
    slots = max(1, sum(record.state is TrialState.RUNNING for record in records))
    more = max(1, found.spent if epoch_s is None else min(found.spent, round(_HOUR_S * slots / epoch_s)))
    gain = found.gain(more)
    again = gain if more == found.spent else found.gain(found.spent)
    unit, scale = ("points", 100.0) if metric in ACCURACIES else (f"of {metric}", 1.0)
    low, high = (f"{scale * end:.2g}" for end in gain.interval)
    lasts = "" if epoch_s is None else f" (about {duration(more * epoch_s / slots)})"
    said = (
        f"another {counted(more, 'epoch')}{lasts}: expected gain {scale * gain.mean:.2g} {unit}, "
        f"90 % interval {low} to {high}"
    )
    if error is not None and is_converged(again, error):
        said += (
            "; going on is not worth it: with as many epochs again, the chance to gain more than one standard error, "
            f"{100 * error:.2g} points, is at most {100 * LEAST_CHANCE:g} %"
        )
    return said


def _epoch_s(records: Sequence[TrialRecord]) -> float | None:
    """Seconds of an epoch on one slot, on average; None before any trial has a result."""
    results = [record.result for record in records if record.result is not None]
    epochs = sum(result.epochs for result in results)
    return sum(result.seconds for result in results) / epochs if epochs else None
