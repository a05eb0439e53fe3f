"""Retry and circuit-breaker policy: when a trial has failed, when a slot is disabled, when the agent stops.

An attempt that ends for a reason outside the trial is retried, a limited number of times, elsewhere or with less
memory.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fer_sweep.records import Cause, TrialOutcome, TrialRequest, TrialState
from fer_sweep.worker.slots import Slot

FAILURES_IN_A_ROW = 5
"""So many trials that fail one after another stop the agent."""
SLOT_FAILURES_IN_A_ROW = 3
"""So many in one slot disable it, if trials in other slots succeed."""
LOSSES_WITHOUT_PROGRESS = 3
"""A trial that is killed so often, or stopped by device errors, with no epoch in between, has failed."""
SMALLEST_MICRO_BATCH = 4
"""Images at once. BatchNorm needs more than one in every part of a batch, however it divides."""


class OnOom(StrEnum):
    """What happens to a trial that runs out of memory."""

    FAIL = "fail"
    """It has failed."""
    SMALLER_MICRO_BATCH = "smaller_micro_batch"
    """It is resumed with half as many images at once and the same batch a step; BatchNorm then sees half as many."""
    FEWER_SLOTS = "fewer_slots"
    """It is resumed with one slot fewer on its device, until the agent ends."""


@dataclass(frozen=True)
class Disabled:
    """An unhealthy slot, disabled."""

    why: str
    trials: Sequence[str]
    """Those that failed there in a row, most likely because of the slot."""


class Failures:
    """The failures of one agent's trials."""

    def __init__(self, slots: Sequence[Slot], on_oom: OnOom = OnOom.FAIL) -> None:
        self._open = {slot.name: slot for slot in slots}
        self._on_oom = on_oom
        self._in_a_row: list[tuple[str, TrialOutcome]] = []
        """Trials, and how they failed or stopped by themselves."""
        self._slot_in_a_row: dict[str, list[str]] = {}
        """By slot, the trials that failed or met a device error there since its last success."""
        self._failed: set[str] = set()
        """Trials that failed in this agent."""
        self._working: set[str] = set()
        """Slots whose latest trial made its first step and has not failed since."""
        self._losses: Counter[str] = Counter()
        """By trial, since its last new epoch."""
        self._furthest: dict[str, int] = {}
        """By trial, its last epoch in any attempt."""
        self._micro_batches: dict[str, int] = {}

    @property
    def must_stop(self) -> bool:
        """Whether so many have failed in a row that no more trials should be started."""
        return len(self._in_a_row) >= FAILURES_IN_A_ROW

    @property
    def in_a_row(self) -> Sequence[str]:
        """The reasons of the failures since the last success, each with its trial."""
        return [f"trial {trial}: {outcome.reason}" for trial, outcome in self._in_a_row]

    def is_open(self, slot: Slot) -> bool:
        """Whether a slot is enabled."""
        return slot.name in self._open

    def share(self, slot: Slot) -> float:
        """The share of its device's memory for a trial in this slot: the same for all enabled slots there."""
        return 1.0 / max(1, len(self._sharing(slot)))

    def micro_batch(self, trial_id: str) -> int | None:
        """Images at once for a trial that ran out of memory with more; None for whole batches."""
        return self._micro_batches.get(trial_id)

    def began(self, slot: Slot) -> None:
        """A trial in this slot has made its first step: data, model and device work there."""
        self._working.add(slot.name)

    def progressed(self, trial_id: str, epoch: int) -> None:
        """A trial has reported an epoch; a resumed one reports earlier ones again."""
        if epoch > self._furthest.get(trial_id, 0):
            self._furthest[trial_id] = epoch
            del self._losses[trial_id]

    def judge(self, slot: Slot, request: TrialRequest, outcome: TrialOutcome, *, was_asked: bool) -> TrialOutcome:
        """What the end of an attempt means for its trial.

        Args:
            slot: Where it ran.
            request: What ran.
            outcome: How it ended.
            was_asked: Whether the agent had asked it to stop: then it is requeued, however it died.
        """
        if outcome.cause is not None and was_asked:
            outcome = replace(outcome, state=TrialState.PREEMPTED)
        elif outcome.cause is Cause.OUT_OF_MEMORY:
            outcome = self._out_of_memory(slot, request, outcome)
        elif outcome.cause is not None:
            outcome = self._lost(request.trial_id, outcome)
        self._count(slot, request.trial_id, outcome, was_asked)
        return outcome

    def disable_unhealthy(self) -> Mapping[str, Disabled]:
        """Disable slots where one trial after another fails while others succeed; returns each once, by its name."""
        suspects = [name for name in self._open if len(self._slot_in_a_row.get(name, [])) >= SLOT_FAILURES_IN_A_ROW]
        return {name: self._disable(name, others) for name in suspects if (others := self._working_beside(name))}

    def _working_beside(self, name: str) -> Sequence[str]:
        return sorted((self._working - {name}) & self._open.keys())

    def _disable(self, name: str, others: Sequence[str]) -> Disabled:
        there = self._slot_in_a_row[name]
        del self._open[name]
        failed = [trial for trial in there if trial in self._failed]
        self._failed -= set(failed)
        self._in_a_row = [(trial, outcome) for trial, outcome in self._in_a_row if trial not in failed]
        return Disabled(f"{len(there)} trials in a row failed there, while {', '.join(others)} did well", failed)

    def _out_of_memory(self, slot: Slot, request: TrialRequest, outcome: TrialOutcome) -> TrialOutcome:
        trial = request.trial_id
        if self._on_oom is OnOom.SMALLER_MICRO_BATCH:
            smaller = self._micro_batches.get(trial, request.config.batch_size) // 2
            if smaller >= SMALLEST_MICRO_BATCH:
                self._micro_batches[trial] = smaller
                return _resumed(outcome, f"resumed with {smaller} images at once")
        if self._on_oom is OnOom.FEWER_SLOTS and len(self._sharing(slot)) > 1 and self.is_open(slot):
            del self._open[slot.name]
            return _resumed(outcome, f"resumed; slot {slot.name} is disabled")
        return replace(outcome, state=TrialState.FAILED)

    def _lost(self, trial_id: str, outcome: TrialOutcome) -> TrialOutcome:
        self._losses[trial_id] += 1
        if self._losses[trial_id] < LOSSES_WITHOUT_PROGRESS:
            return replace(outcome, state=TrialState.PREEMPTED)
        reason = f"{self._losses[trial_id]} times in a row with no epoch in between: {outcome.reason}"
        return replace(outcome, state=TrialState.FAILED, reason=reason)

    def _count(self, slot: Slot, trial_id: str, outcome: TrialOutcome, was_asked: bool) -> None:
        if outcome.state.has_value:
            self._in_a_row.clear()
            self._slot_in_a_row[slot.name] = []
            return
        # One that is preempted unasked stopped by itself, such as on a full disk: not to be retried forever.
        stopped_itself = outcome.state is TrialState.PREEMPTED and outcome.cause is None and not was_asked
        if outcome.state is TrialState.FAILED or stopped_itself:
            self._in_a_row.append((trial_id, outcome))
        if outcome.state is TrialState.FAILED:
            self._failed.add(trial_id)
        if outcome.state is TrialState.FAILED or outcome.cause is Cause.DEVICE:
            self._slot_in_a_row.setdefault(slot.name, []).append(trial_id)
            self._working.discard(slot.name)

    def _sharing(self, slot: Slot) -> list[Slot]:
        return [other for other in self._open.values() if other.environment == slot.environment]


def _resumed(outcome: TrialOutcome, how: str) -> TrialOutcome:
    first_line = (outcome.reason or "out of memory").partition("\n")[0]
    return replace(outcome, state=TrialState.PREEMPTED, reason=f"{first_line}; {how}")
