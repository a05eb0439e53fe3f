"""What an agent knows of a trial that runs in one of its slots."""

import time
from dataclasses import dataclass, field

from fer_sweep.agent.processes import TrialHandle
from fer_sweep.agent.slots import Slot
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest
from fer_sweep.tracking import TrackedRun


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
