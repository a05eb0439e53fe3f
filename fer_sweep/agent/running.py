"""What an agent knows of a trial that runs in one of its slots."""

import time
from dataclasses import dataclass, field

from fer_sweep.agent.silence import LAST_WORDS_S
from fer_sweep.host_processes import is_paused
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState
from fer_sweep.wandb_client.tracking import TrackedRun
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters import TrialHandle


@dataclass
class Running:
    """One occupied slot."""

    slot: Slot
    request: TrialRequest
    handle: TrialHandle
    run: TrackedRun
    epoch: int = 0
    asked_to_stop: StopReason | None = None
    outcome: TrialOutcome | None = None
    ended_at: float = 0.0
    """When its outcome, or its death, was seen; this and the following by the monotonic clock."""
    heard_at: float = field(default_factory=time.monotonic)
    """When it last made a step."""
    has_begun: bool = False
    """Whether it has made one."""
    hung: str | None = None
    """Why it counts as hung: it has been told to abort."""
    kill_at: float = float("inf")
    """When it is to be killed, having had the time for its last words."""
    lost: bool = False
    """Another agent has it now."""

    def ask_to_stop(self, reason: StopReason) -> None:
        """Have it stop at its next step."""
        self.asked_to_stop = reason
        self.handle.ask_to_stop(reason)

    def look_after(self, limit_s: float) -> None:
        """Have it write down where it is, and end, if it has made no step for so long; kill it if it cannot."""
        now = time.monotonic()
        if now >= self.kill_at:
            self.handle.kill()
        if self.hung is None and now - self.heard_at > limit_s and not is_paused(self.handle.process.pid):
            self.hung = f"made no step for {now - self.heard_at:,.0f} s and was ended"
            self.kill_at = now + LAST_WORDS_S
            self.handle.abort()

    def outcome_of_the_dead(self) -> TrialOutcome:
        """What became of a trial whose process has ended without a word."""
        reason, cause = self.handle.why_it_died()
        if self.hung is not None:
            return TrialOutcome(TrialState.FAILED, reason=f"{self.hung}: {reason}")
        return TrialOutcome(TrialState.FAILED, reason=reason, cause=cause)
