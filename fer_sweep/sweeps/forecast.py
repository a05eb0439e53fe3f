"""How many trials of a sweep are left, and for how long. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fer_sweep.formatting import counted, duration
from fer_sweep.records import TrialRecord, TrialState


@dataclass(frozen=True)
class Forecast:
    """What a sweep still has to train."""

    trials: int | None
    """Trials that have not ended, without the paused ones; None if the sweep has no limit."""
    slots: int
    """Slots that train at the same time."""
    seconds: float | None = None
    """Until the last trial has ended; None before any has, or without a limit. At most so many with paused trials, of
    which only those are trained on that may still win."""
    per_hour: float | None = None
    """Trials an hour on these slots; None before any has ended."""
    paused: int = 0
    """Paused trials."""

    def __str__(self) -> str:
        """The forecast in words.

        >>> str(Forecast(12, 2, seconds=7000.0, per_hour=6.2)), str(Forecast(1, 1))
        ('12 trials left: about 1.9 h on 2 slots', '1 trial left')
        >>> str(Forecast(2, 1, seconds=7000.0, paused=5))
        '2 trials left, 5 paused: at most 1.9 h on 1 slot'
        >>> str(Forecast(None, 1, per_hour=6.2))
        'no limit on trials; about 6.2 an hour on 1 slot'
        """
        on = f"on {counted(self.slots, 'slot')}"
        if self.trials is None:
            return "no limit on trials" + (f"; about {self.per_hour:,.3g} an hour {on}" if self.per_hour else "")
        left = f"{counted(self.trials, 'trial')} left" + (f", {self.paused} paused" if self.paused else "")
        if not (self.trials or self.paused) or self.seconds is None:
            return left
        return f"{left}: {'at most' if self.paused else 'about'} {duration(self.seconds)} {on}"


def forecast(records: Sequence[TrialRecord], *, planned: int | None, slots: int | None = None) -> Forecast:
    """Forecast the rest of a sweep from the trials that have ended, or else from what the paused ones have trained.

    Args:
        records: Its trials.
        planned: The largest number of trials; None if unlimited.
        slots: Slots that train at the same time; by default as many as trials are running, and at least one.
    """
    ended = [record for record in records if record.state.has_ended]
    open_shares = [1.0 - _done(record) for record in records if not record.state.has_ended]
    slots = slots or max(1, sum(record.state is TrialState.RUNNING for record in records))
    paused = [record for record in records if record.state is TrialState.PAUSED]
    took = [record.result.seconds for record in ended if record.result is not None]
    took = took or [record.result.seconds / _done(record) for record in paused if record.result and _done(record)]
    mean_s = statistics.fmean(took) if took else None
    per_hour = 3600 * slots / mean_s if mean_s and not paused else None
    if planned is None:
        return Forecast(None, slots, per_hour=per_hour, paused=len(paused))
    new = max(0, planned - len(records))
    seconds = None if mean_s is None else left_s([share * mean_s for share in open_shares] + [mean_s] * new, slots)
    return Forecast(len(open_shares) - len(paused) + new, slots, seconds, per_hour, len(paused))


def left_s(trials_s: Sequence[float], slots: int) -> float:
    """Seconds until trials that take so long each have ended on some slots, the first ones first.

    >>> left_s([10.0, 10.0, 10.0], 2), left_s([], 2)
    (20.0, 0.0)
    """
    ends = [0.0] * max(1, slots)
    for seconds in trials_s:
        ends[ends.index(min(ends))] += seconds
    return max(ends)


def _done(record: TrialRecord) -> float:
    """The share of its epochs that a trial has trained."""
    epochs = record.config.get("epochs")
    return min(1.0, record.metrics.get("epoch", 0.0) / epochs) if isinstance(epochs, int) and epochs else 0.0
