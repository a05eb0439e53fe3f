"""What an agent shows of its work: the seam to a view while it works, and a summary at its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fer_sweep.records import TrialOutcome, TrialRequest, TrialState


class AgentView(Protocol):
    """What shows a person how the agent is getting on."""

    def trial_started(self, slot: str, request: TrialRequest) -> None: ...  # noqa: D102
    def epoch(self, slot: str, trial_id: str, metrics: Mapping[str, float]) -> None: ...  # noqa: D102
    def trial_ended(self, slot: str, trial_id: str, outcome: TrialOutcome) -> None: ...  # noqa: D102
    def note(self, text: str) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class AgentSummary:
    """What one agent did."""

    ended: Mapping[TrialState, int]
    """Attempts by how they ended."""
    interrupted: bool
    """Whether a signal cut the work short."""
    turnaround_s: tuple[float, ...]
    """Seconds from one trial's end to the first step of the next one in its slot."""
