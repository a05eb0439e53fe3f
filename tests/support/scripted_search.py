"""A search that hands out given trials and answers reports as told: it enters through the Search seam."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fer_sweep.config.trial import parse_trial
from fer_sweep.records import StopReason, TrialOutcome, TrialRecord, TrialRequest, TrialState, Wait

TINY = {"model": "simple_cnn", "data": "tiny", "epochs": 3, "channels": 4, "hidden": 8, "batch_size": 16}
ENDLESS = {**TINY, "epochs": 10_000}


def request(trial_id: str, **values: Any) -> TrialRequest:
    config = {**TINY, **values}
    return TrialRequest(trial_id, parse_trial(config), config)


class ScriptedSearch:
    """Hands out ``trials`` in turn, a preempted one again; records everything it is told."""

    def __init__(
        self,
        trials: Sequence[TrialRequest | Wait],
        answer: Callable[[str, int], StopReason | None] = lambda trial_id, epoch: None,
    ) -> None:
        self.waiting: list[TrialRequest | Wait] = list(trials)
        self.answer = answer
        self.epochs: dict[str, list[int]] = {}
        self.outcomes: dict[str, list[TrialOutcome]] = {}
        self._requests: dict[str, TrialRequest] = {}

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        if not self.waiting:
            return None
        given = self.waiting.pop(0)
        if isinstance(given, TrialRequest):
            self._requests[given.trial_id] = given
        return given

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        if metrics:
            self.epochs.setdefault(trial_id, []).append(epoch)
        return self.answer(trial_id, epoch)

    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        self.outcomes.setdefault(trial_id, []).append(outcome)
        if outcome.state is TrialState.PREEMPTED:
            self.waiting.append(self._requests[trial_id])

    def records(self) -> Sequence[TrialRecord]:
        return ()
