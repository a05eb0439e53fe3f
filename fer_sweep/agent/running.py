"""A trial that runs in a slot, when its process counts as hung, and what an agent did in all."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from fer_sweep.host_processes import is_paused
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState
from fer_sweep.wandb_client.tracking import TrackedRun
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters import TrialHandle

LIMIT_S = 300.0
"""A trial hangs if it makes no step for so long; steps and the parts of an evaluation take seconds at most."""
START_LIMIT_S = 1800.0
"""The same before the first step, in which pretrained weights may be downloaded."""
TIMES_THE_LONGEST = 10
"""The limit is at least so many times the longest time between two steps."""
ABORT_S = 5.0
"""How long a hung trial has to write its stack trace before it is killed."""


@dataclass(frozen=True)
class AgentSummary:
    """What one agent did."""

    ended: Mapping[TrialState, int]
    """Attempts by how they ended."""
    interrupted: bool
    """Whether a signal stopped the agent."""
    turnaround_s: tuple[float, ...]
    """Seconds from one trial's end to the first step of the next one in its slot."""
    timed_out: bool = False
    """Whether its deadline stopped the agent."""

    @property
    def has_value(self) -> bool:
        """Whether a trial has ended with a result."""
        return any(state.has_value for state in self.ended)

    def __repr__(self) -> str:
        ended = ", ".join(f"{count} {state}" for state, count in self.ended.items()) or "no trial ended"
        return f"<AgentSummary: {ended}{', interrupted' if self.interrupted else ''}>"


class Turnaround:
    """How long slots stay empty between two trials."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        """From one trial's end to the first step of the next one in its slot."""
        self._freed_at: dict[str, float] = {}

    def freed(self, slot: str, at: float) -> None:
        """The slot's trial has ended."""
        self._freed_at[slot] = at

    def waits(self, slot: str) -> None:
        """The slot is to stay empty, which is no turnaround."""
        self._freed_at.pop(slot, None)

    def began(self, slot: str) -> None:
        """The slot's next trial has made its first step."""
        if (freed := self._freed_at.pop(slot, None)) is not None:
            self.seconds.append(time.monotonic() - freed)


@dataclass
class HangLimit:
    """How long a trial may make no step before it counts as hung; in seconds."""

    given_s: float | None = None
    """None to learn it from the trials."""
    longest_s: float = 0.0
    """Between two steps of any trial of this agent."""

    def seconds(self, *, has_begun: bool) -> float:
        """The limit, before or after a trial's first step."""
        if self.given_s is not None:
            return self.given_s
        return max(LIMIT_S if has_begun else START_LIMIT_S, TIMES_THE_LONGEST * self.longest_s)


@dataclass
class Running:
    """One occupied slot. Times are in seconds of the monotonic clock."""

    slot: Slot
    request: TrialRequest
    handle: TrialHandle
    run: TrackedRun
    epoch: int = 0
    asked_to_stop: StopReason | None = None
    outcome: TrialOutcome | None = None
    ended_at: float = 0.0
    """When its outcome arrived, or its process ended."""
    last_beat: float = field(default_factory=time.monotonic)
    """When it last made a step, or started."""
    has_begun: bool = False
    """Whether it has made a step."""
    hung: str | None = None
    """Why it counts as hung: it has been told to abort."""
    kill_at: float = float("inf")
    """When a hung one is killed."""
    lost: bool = False
    """Another agent has reclaimed the trial."""

    def ask_to_stop(self, reason: StopReason) -> None:
        """Have it stop at its next step, unless it has been asked already."""
        if self.asked_to_stop is None:
            self.asked_to_stop = reason
            self.handle.ask_to_stop(reason)

    def preempt(self) -> None:
        """Have it stop with a checkpoint and be requeued, unless it has been asked to stop already."""
        if self.asked_to_stop is None:  # one that is being pruned must not be requeued
            self.ask_to_stop(StopReason.PREEMPTED)
            self.run.mark_preempting()  # at once: a scheduler may not wait for checkpoints

    def kill(self) -> None:
        """Kill it; it counts as preempted, unless it has been asked to stop already."""
        self.ask_to_stop(StopReason.PREEMPTED)
        self.handle.kill()

    def end_if_hung(self, limit_s: float) -> None:
        """Abort it, with a stack trace, if it has made no step for so long; kill it if that does not end it."""
        now = time.monotonic()
        if now >= self.kill_at:
            self.handle.kill()
        if self.hung is None and now - self.last_beat > limit_s and not is_paused(self.handle.process.pid):
            self.hung = f"made no step for {now - self.last_beat:,.0f} s and was ended"
            self.kill_at = now + ABORT_S
            self.handle.abort()

    def outcome_of_death(self) -> TrialOutcome:
        """The outcome of a trial whose process has ended without sending one."""
        reason, cause = self.handle.why_it_died()
        if self.hung is not None:
            return TrialOutcome(TrialState.FAILED, reason=f"{self.hung}: {reason}")
        return TrialOutcome(TrialState.FAILED, reason=reason, cause=cause)
