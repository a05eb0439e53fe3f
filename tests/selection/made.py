"""Candidates made by hand, for every test of selection."""

from typing import Any

from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.selection import Candidate
from tests.conftest import make_result

SIMPLE = {"model": "simple_cnn", "data": "fer2013"}


def candidate(
    name: str,
    accuracy: float,
    gap: float = 0.1,
    *,
    size: int = 1000,
    state: TrialState = TrialState.COMPLETE,
    n: int = 3589,
    best_epoch: int = 1,
    sweep: str = "s",
    config: dict[str, Any] | None = None,
    parameters: dict[str, Any] | None = None,
    verdict: str = "balanced",
    fingerprint: str = "",
) -> Candidate:
    train_acc = min(max(accuracy + gap, 0.0), 1.0)
    result = make_result(
        best_val_acc=accuracy,
        best_epoch=best_epoch,
        train_acc=train_acc,
        train_val_gap=train_acc - accuracy,
        val_acc_clean=accuracy,
        confusion_matrix=((n, 0, 0, 0, 0, 0, 0),) + ((0,) * 7,) * 6,
        parameters=size,
        verdict=verdict,
    )
    record = TrialRecord(name, state, config or SIMPLE, parameters or {}, result=result)
    return Candidate(sweep, record, result, fingerprint)
