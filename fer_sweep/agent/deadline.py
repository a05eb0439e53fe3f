"""When an agent must have ended, and which trials can still finish by then."""

import statistics
import time as clocks
from collections.abc import Callable, Sequence
from datetime import datetime, time, timedelta

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.records import TrialRecord, TrialRequest, TrialResult

NOTICE_S = 30.0
"""So long before the deadline, running trials are asked for checkpoints, which take seconds."""
NOTICE_SHARE = 0.1
"""Of the agent's whole time, which may be short, the notice takes at most this share."""
ALIKE = 3
"""So many finished trials, the most similar ones, say how long a trial takes."""


class Deadline:
    """The end of one agent's time."""

    def __init__(self, at: datetime, *, clock: Callable[[], float] = clocks.time) -> None:
        """Start the agent's time.

        Args:
            at: When the agent must have ended.
            clock: Unix time, seconds.

        Raises:
            NothingToDo: That time has passed.
        """
        self.at = at
        self._clock = clock
        if self.left_s <= 0:
            raise NothingToDo(f"the deadline {self} has passed", hint="give a later one, or none: fersweep agent")
        self._notice_s = min(NOTICE_S, NOTICE_SHARE * self.left_s)
        self._finished: list[tuple[TrialConfig, float]] = []
        """The agent's finished trials, and how many seconds each took for an epoch."""
        self.is_too_near = False
        """Whether a trial could not finish any more: the agent hands out no more of them."""

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M}"

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.at.timestamp() - self._clock()

    @property
    def training_s(self) -> float:
        """Seconds until running trials are asked for checkpoints."""
        return self.left_s - self._notice_s

    @property
    def level(self) -> int:
        """How urgent it is, as ``Interrupts.level``: 0 not yet, 2 checkpoint, 3 kill."""
        left = self.left_s
        return 3 if left <= 0 else 2 if left <= self._notice_s else 0

    def learn(self, config: TrialConfig, result: TrialResult) -> None:
        """Record how long a trial took."""
        if result.epochs:
            self._finished.append((config, result.seconds / result.epochs))

    def has_time_for(self, request: TrialRequest, records: Callable[[], Sequence[TrialRecord]]) -> bool:
        """Whether a trial can finish, or its turn, judged by the most similar ones of its architecture.

        True before there is one.

        Args:
            request: The trial.
            records: Gives the trials of its sweep: a resumed one has some epochs already.
        """
        config = request.config
        values = config.model_dump()

        def likeness(finished: tuple[TrialConfig, float]) -> int:
            other = finished[0].model_dump()
            return sum(other.get(name) == value for name, value in values.items())

        same = sorted((f for f in self._finished if f[0].model == config.model), key=likeness, reverse=True)
        if not same:
            return True
        epoch_s = statistics.median(seconds for _, seconds in same[:ALIKE])
        done = 0.0
        if request.attempt > 1:
            done = sum(record.metrics.get("epoch", 0.0) for record in records() if record.trial_id == request.trial_id)
        last = config.epochs if request.until is None else request.until
        self.is_too_near = (last - done) * epoch_s > self.training_s
        return not self.is_too_near


def end_of(hours: float | None, deadline: str | None, *, now: datetime) -> datetime | None:
    """When an agent with ``--hours`` or ``--deadline`` has to end; None without either.

    Args:
        hours: From now.
        deadline: A time of day, today or tomorrow, or an ISO date and time; in this host's time zone by default.
        now: The time, with its zone.

    Raises:
        InputError: Both are given, or the deadline is no time.
    """
    if deadline is None:
        return None if hours is None else now + timedelta(hours=hours)
    if hours is not None:
        raise InputError("hours and deadline both say when to end", hint="give one of them")
    try:
        if ":" not in deadline:  # "8" is no time of day, and a date alone does not say when
            raise ValueError
        return _parsed(deadline.strip(), now)
    except ValueError:
        hint = "a time of day such as 18:30, or a date and time such as 2026-12-01T08:00"
        raise InputError(f"deadline {deadline}: not a time", hint=hint) from None


def _parsed(text: str, now: datetime) -> datetime:
    try:
        moment = time.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(text).astimezone()
    today = now.astimezone(moment.tzinfo).date()
    # Not + 24 hours, which is another time of day when the clocks change.
    at = (datetime.combine(day, moment).astimezone() for day in (today, today + timedelta(days=1)))
    return next(at_that_day for at_that_day in at if at_that_day > now)
