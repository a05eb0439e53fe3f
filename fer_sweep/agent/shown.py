"""What an agent shows of its work: the seam to a view while it works, and a summary at its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fer_sweep.records import TrialOutcome, TrialRequest, TrialState


class AgentView(Protocol):
    """What shows a person how the agent is getting on."""

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        """A trial begins in a slot, or is gone on with."""

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        """A trial has finished an epoch, with the metrics of its line of the history."""

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """An attempt at a trial is over."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True)
class AgentSummary:
    """What one agent did."""

    ended: Mapping[TrialState, int]
    """Attempts by how they ended."""
    interrupted: bool
    """Whether a signal cut the work short."""
    turnaround_s: tuple[float, ...]
    """Seconds from one trial's end to the first step of the next one in its slot."""
