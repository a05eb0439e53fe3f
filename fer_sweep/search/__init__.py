"""What proposes the next trial and stops bad ones early; one module per algorithm."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from fer_sweep.records import StopReason, TrialOutcome, TrialRecord, TrialRequest, Wait


class Search(Protocol):
    """What an agent talks to. Safe to use from several agents at once, each with its own instance."""

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        """Hand out a trial to ``slot``: a new one, or one to resume from its checkpoint.

        Returns:
            None when the sweep is exhausted, stopped or at its cap; Wait while it is paused.
        """
        ...

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        """Record one epoch (from 1) of a running trial, and say whether it should stop.

        Empty ``metrics`` are a heartbeat: they renew the lease, and the answer lets a stop or cancel through in the
        middle of a long epoch. An epoch reported again after a resumption replaces the earlier report and never prunes.

        Raises:
            LostTrial: Another agent has reclaimed the trial.
        """
        ...

    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        """Record how the attempt ended; a preempted trial is handed out again by ``next_trial``.

        Raises:
            LostTrial: Another agent has reclaimed the trial.
        """
        ...

    def records(self) -> Sequence[TrialRecord]:
        """Every trial of the sweep, oldest first."""
        ...
