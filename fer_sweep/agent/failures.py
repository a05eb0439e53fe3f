"""Retry and circuit-breaker policy: when a trial has failed, when a slot is disabled, when the agent stops.

An attempt that ends for a reason outside the trial is retried, a limited number of times, elsewhere or with less
memory.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from fer_sweep.errors import AgentFailed
from fer_sweep.formatting import counted
from fer_sweep.records import Cause, TrialOutcome, TrialRecord, TrialRequest, TrialState
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


class Failures:
    """The failures of one agent's trials."""

    def __init__(self, slots: Sequence[Slot], on_oom: OnOom = OnOom.FAIL) -> None:
        self._open = {slot.name: slot for slot in slots}
        self._on_oom = on_oom
        self._in_a_row: list[tuple[str, str]] = []
        """Since the last success: the slot of each trial that failed or stopped by itself, and how."""
        self._slot_in_a_row: dict[str, list[tuple[str, TrialOutcome]]] = {}
        """By slot, since its last success: trials that failed or met a device error there."""
        self._working: set[str] = set()
        """Slots whose latest trial made its first step and has not failed since."""
        self._losses: dict[str, tuple[int, int]] = {}
        """By trial: its losses since its last new epoch, and that epoch."""
        self._micro_batches: dict[str, int] = {}

    @property
    def must_stop(self) -> bool:
        """Whether so many have failed in a row that no more trials should be started."""
        return len(self._in_a_row) >= FAILURES_IN_A_ROW

    @property
    def in_a_row(self) -> Sequence[str]:
        """The failures since the last success, each with its trial."""
        return [failure for _, failure in self._in_a_row]

    def error(self, records: Sequence[TrialRecord], complete_here: int, *, logs: Path) -> AgentFailed:
        """The error that ends the agent."""
        # Failures here beside successes elsewhere, or earlier, point to this host and not to the sweep.
        elsewhere = sum(record.state is TrialState.COMPLETE for record in records) - complete_here
        others = f"complete elsewhere: {counted(elsewhere, 'trial')}, so check this host first: fersweep doctor; "
        failed, *more = reversed(self.in_a_row)
        several = " one after another, the last one" if more else ""
        return AgentFailed(
            f"{counted(1 + len(more), 'trial')} failed{several}: {failed}",
            hint=f"{others if elsewhere else ''}fix the cause (see trial.log below {logs}), "
            "then: fersweep agent --retry-failed",
        )

    def is_open(self, slot: Slot) -> bool:
        """Whether a slot is enabled."""
        return slot.name in self._open

    def share(self, slot: Slot) -> float:
        """The share of its device's memory for a trial in this slot: the same for all enabled slots there."""
        return 1.0 / max(1, self._sharing(slot))

    def micro_batch(self, trial_id: str) -> int | None:
        """Images at once for a trial that ran out of memory with more; None for whole batches."""
        return self._micro_batches.get(trial_id)

    def began(self, slot: Slot) -> None:
        """A trial in this slot has made its first step: data, model and device work there."""
        self._working.add(slot.name)

    def judge(
        self, slot: Slot, request: TrialRequest, outcome: TrialOutcome, *, epoch: int, was_asked: bool
    ) -> TrialOutcome:
        """What the end of an attempt, after this epoch, means for its trial.

        One that the agent had asked to stop is requeued, however it died.
        """
        if outcome.cause is not None and was_asked:
            outcome = replace(outcome, state=TrialState.PREEMPTED)
        elif outcome.cause is Cause.OUT_OF_MEMORY:
            outcome = self._out_of_memory(slot, request, outcome)
        elif outcome.cause is not None:
            outcome = self._lost(request.trial_id, outcome, epoch)
        self._count(slot.name, request.trial_id, outcome, was_asked)
        return outcome

    def disable_unhealthy(self) -> Sequence[str]:
        """Disable slots where one trial after another fails while others succeed; returns a note on each."""
        notes = []
        for name, there in self._slot_in_a_row.items():
            others = sorted((self._working - {name}) & self._open.keys())
            if name not in self._open or len(there) < SLOT_FAILURES_IN_A_ROW or not others:
                continue
            del self._open[name]
            self._in_a_row = [(slot, failure) for slot, failure in self._in_a_row if slot != name]
            failed = [trial for trial, outcome in there if outcome.state is TrialState.FAILED]
            again = f"; to retry trial {', '.join(failed)}: fersweep retry" if failed else ""
            why = f"{len(there)} trials in a row failed there, while {', '.join(others)} did well"
            notes.append(f"slot {name} is disabled: {why}{again}")
        return notes

    def _out_of_memory(self, slot: Slot, request: TrialRequest, outcome: TrialOutcome) -> TrialOutcome:
        trial = request.trial_id
        if self._on_oom is OnOom.SMALLER_MICRO_BATCH:
            smaller = self._micro_batches.get(trial, request.config.batch_size) // 2
            if smaller >= SMALLEST_MICRO_BATCH:
                self._micro_batches[trial] = smaller
                return _resumed(outcome, f"resumed with {smaller} images at once")
        if self._on_oom is OnOom.FEWER_SLOTS and self._sharing(slot) > 1 and self.is_open(slot):
            del self._open[slot.name]
            return _resumed(outcome, f"resumed; slot {slot.name} is disabled")
        return replace(outcome, state=TrialState.FAILED)

    def _lost(self, trial_id: str, outcome: TrialOutcome, epoch: int) -> TrialOutcome:
        losses, furthest = self._losses.get(trial_id, (0, 0))
        losses = 1 if epoch > furthest else losses + 1
        self._losses[trial_id] = (losses, max(epoch, furthest))
        if losses < LOSSES_WITHOUT_PROGRESS:
            return replace(outcome, state=TrialState.PREEMPTED)
        reason = f"{losses} times in a row with no epoch in between: {outcome.reason}"
        return replace(outcome, state=TrialState.FAILED, reason=reason)

    def _count(self, slot: str, trial_id: str, outcome: TrialOutcome, was_asked: bool) -> None:
        if outcome.state.has_value:
            self._in_a_row.clear()
            self._slot_in_a_row.pop(slot, None)
            return
        # One that is preempted unasked stopped by itself, such as on a full disk: not to be retried forever.
        stopped_itself = outcome.state is TrialState.PREEMPTED and outcome.cause is None and not was_asked
        if outcome.state is TrialState.FAILED or stopped_itself:
            self._in_a_row.append((slot, f"trial {trial_id}: {outcome.reason}"))
        if outcome.state is TrialState.FAILED or outcome.cause is Cause.DEVICE:
            self._slot_in_a_row.setdefault(slot, []).append((trial_id, outcome))
            self._working.discard(slot)

    def _sharing(self, slot: Slot) -> int:
        """How many enabled slots share its device."""
        return sum(other.environment == slot.environment for other in self._open.values())


def _resumed(outcome: TrialOutcome, how: str) -> TrialOutcome:
    first_line = (outcome.reason or "out of memory").partition("\n")[0]
    return replace(outcome, state=TrialState.PREEMPTED, reason=f"{first_line}; {how}")
