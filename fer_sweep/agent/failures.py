"""Retry and circuit-breaker policy: when a trial has failed, when a slot is disabled, when the agent stops.

An attempt that breaks off for reasons outside the trial is retried, elsewhere or with less memory. All of it is
counted, so that nothing is retried for ever.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fer_sweep.records import Cause, TrialOutcome, TrialRequest, TrialState
from fer_sweep.worker.slots import Slot

FAILURES_IN_A_ROW = 5
"""So many trials failing one after another stop the agent."""
SLOT_FAILURES_IN_A_ROW = 3
"""So many in one slot close it, if trials in other slots do well."""
LOSSES_WITHOUT_PROGRESS = 3
"""A trial killed so often from outside, or by its device, with no epoch in between, has failed."""
SMALLEST_MICRO_BATCH = 4
"""Images at once. BatchNorm needs more than one of them in every part of a batch, however it divides."""


class OnOom(StrEnum):
    """What becomes of a trial that runs out of memory."""

    FAIL = "fail"
    """It has failed."""
    SMALLER_MICRO_BATCH = "smaller_micro_batch"
    """It goes on with half as many images at once and the same batch a step; BatchNorm then sees half as many."""
    FEWER_SLOTS = "fewer_slots"
    """It goes on with one slot fewer on its device, for as long as this agent works."""


@dataclass(frozen=True)
class Closed:
    """An unhealthy slot, disabled."""

    why: str
    trials: Sequence[str]
    """Those that failed there in a row: the slot's fault, as far as one can tell."""


class Failures:
    """The failures of one agent's trials."""

    def __init__(self, slots: Sequence[Slot], on_oom: OnOom = OnOom.FAIL) -> None:
        self._open = {slot.name: slot for slot in slots}
        self._on_oom = on_oom
        self._in_a_row: list[tuple[str, TrialOutcome]] = []
        """Trials, and how they failed or gave up."""
        self._slot_in_a_row: dict[str, list[str]] = {}
        """By slot, the trials that failed or met a broken device there since its last success."""
        self._failed: set[str] = set()
        """Trials that this agent has called failed."""
        self._working: set[str] = set()
        """Slots whose latest trial made its first step and has not failed since."""
        self._losses: Counter[str] = Counter()
        """By trial, since its last new epoch."""
        self._furthest: dict[str, int] = {}
        """By trial, its last epoch in any attempt."""
        self._micro_batches: dict[str, int] = {}

    @property
    def has_had_enough(self) -> bool:
        """Whether so much has failed that no more trials should be started."""
        return len(self._in_a_row) >= FAILURES_IN_A_ROW

    @property
    def in_a_row(self) -> Sequence[str]:
        """The reasons of the failures since the last success, each with its trial."""
        return [f"trial {trial}: {outcome.reason}" for trial, outcome in self._in_a_row]

    def is_open(self, slot: Slot) -> bool:
        """Whether trials may be started in a slot."""
        return slot.name in self._open

    def share(self, slot: Slot) -> float:
        """The part of its device's memory that a trial in this slot may take: all open slots there have the same."""
        return 1.0 / max(1, len(self._sharing(slot)))

    def micro_batch(self, trial_id: str) -> int | None:
        """Images at once, for a trial that has run out of memory with more; None for whole batches."""
        return self._micro_batches.get(trial_id)

    def began(self, slot: Slot) -> None:
        """A trial in this slot has made its first step: data, model and device are in order there."""
        self._working.add(slot.name)

    def progressed(self, trial_id: str, epoch: int) -> None:
        """A trial has reported an epoch; one that goes on from a checkpoint reports earlier ones again."""
        if epoch > self._furthest.get(trial_id, 0):
            self._furthest[trial_id] = epoch
            del self._losses[trial_id]

    def judge(self, slot: Slot, request: TrialRequest, outcome: TrialOutcome, *, was_asked: bool) -> TrialOutcome:
        """What the end of an attempt means for its trial.

        Args:
            slot: Where it ran.
            request: What ran.
            outcome: How it ended.
            was_asked: Whether the agent had asked it to stop: then a killed one was in nobody's way.
        """
        if outcome.cause is not None and was_asked:
            outcome = replace(outcome, state=TrialState.PREEMPTED)
        elif outcome.cause is Cause.OUT_OF_MEMORY:
            outcome = self._out_of_memory(slot, request, outcome)
        elif outcome.cause is not None:
            outcome = self._lost(request.trial_id, outcome)
        self._count(slot, request.trial_id, outcome, was_asked)
        return outcome

    def close_broken(self) -> Mapping[str, Closed]:
        """Close the slots where one trial after another fails while others do well; gives each once, by its name."""
        suspects = [name for name in self._open if len(self._slot_in_a_row.get(name, [])) >= SLOT_FAILURES_IN_A_ROW]
        return {name: self._close(name, others) for name in suspects if (others := self._do_well_beside(name))}

    def _do_well_beside(self, name: str) -> Sequence[str]:
        return sorted((self._working - {name}) & self._open.keys())

    def _close(self, name: str, others: Sequence[str]) -> Closed:
        there = self._slot_in_a_row[name]
        del self._open[name]
        failed = [trial for trial in there if trial in self._failed]
        self._failed -= set(failed)
        self._in_a_row = [(trial, outcome) for trial, outcome in self._in_a_row if trial not in failed]
        return Closed(f"{len(there)} trials in a row failed there, while {', '.join(others)} did well", failed)

    def _out_of_memory(self, slot: Slot, request: TrialRequest, outcome: TrialOutcome) -> TrialOutcome:
        trial = request.trial_id
        if self._on_oom is OnOom.SMALLER_MICRO_BATCH:
            smaller = self._micro_batches.get(trial, request.config.batch_size) // 2
            if smaller >= SMALLEST_MICRO_BATCH:
                self._micro_batches[trial] = smaller
                return _goes_on(outcome, f"goes on with {smaller} images at once")
        if self._on_oom is OnOom.FEWER_SLOTS and len(self._sharing(slot)) > 1 and self.is_open(slot):
            del self._open[slot.name]
            return _goes_on(outcome, f"goes on without slot {slot.name}")
        return replace(outcome, state=TrialState.FAILED)

    def _lost(self, trial_id: str, outcome: TrialOutcome) -> TrialOutcome:
        self._losses[trial_id] += 1
        if self._losses[trial_id] < LOSSES_WITHOUT_PROGRESS:
            return replace(outcome, state=TrialState.PREEMPTED)
        reason = f"{self._losses[trial_id]} times in a row with no epoch in between: {outcome.reason}"
        return replace(outcome, state=TrialState.FAILED, reason=reason)

    def _count(self, slot: Slot, trial_id: str, outcome: TrialOutcome, was_asked: bool) -> None:
        if outcome.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self._in_a_row.clear()
            self._slot_in_a_row[slot.name] = []
            return
        # One that is handed back unasked gave up by itself, such as on a full disk: not to be tried again and again.
        gave_up = outcome.state is TrialState.PREEMPTED and outcome.cause is None and not was_asked
        if outcome.state is TrialState.FAILED or gave_up:
            self._in_a_row.append((trial_id, outcome))
        if outcome.state is TrialState.FAILED:
            self._failed.add(trial_id)
        if outcome.state is TrialState.FAILED or outcome.cause is Cause.DEVICE:
            self._slot_in_a_row.setdefault(slot.name, []).append(trial_id)
            self._working.discard(slot.name)

    def _sharing(self, slot: Slot) -> list[Slot]:
        return [other for other in self._open.values() if other.environment == slot.environment]


def _goes_on(outcome: TrialOutcome, how: str) -> TrialOutcome:
    first_line = (outcome.reason or "out of memory").partition("\n")[0]
    return replace(outcome, state=TrialState.PREEMPTED, reason=f"{first_line}; {how}")
