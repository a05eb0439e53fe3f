"""The seam between an agent and the view that shows its progress, and the summary at its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fer_sweep.records import TrialOutcome, TrialRequest, TrialState


class AgentView(Protocol):
    """Shows the progress of an agent."""

    def trial_started(self, slot: str, request: TrialRequest) -> None:
        """A trial starts in a slot, or is resumed there."""

    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None:
        """A trial has finished an epoch, with the metrics of its line of the history."""

    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None:
        """An attempt at a trial has ended."""

    def note(self, text: str) -> None:
        """A message for the user."""


@dataclass(frozen=True)
class AgentSummary:
    """What one agent did."""

    ended: Mapping[TrialState, int]
    """Attempts by how they ended."""
    interrupted: bool
    """Whether a signal stopped the agent."""
    turnaround_s: tuple[float, ...]
    """Seconds from one trial's end to the first step of the next one in its slot."""
