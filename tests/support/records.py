"""Results, records and candidates, made from what a test says of them."""

from typing import Any

from fer_sweep.records import TrialRecord, TrialResult, TrialState
from fer_sweep.selection import Candidate


def make_result(**changes: Any) -> TrialResult:
    """The result of a complete trial of one epoch, with changes."""
    values: dict[str, Any] = {"best_val_acc": 0.5, "train_acc": 0.6, "train_val_gap": 0.1, "val_acc_clean": 0.5}
    values |= {"macro_f1": 0.4, "per_class_recall": (0.5,) * 7, "confusion_matrix": ((1,) * 7,) * 7}
    values |= {"best_epoch": 1, "epochs": 1, "parameters": 1000, "precision": "fp32", "verdict": "balanced"}
    values |= {"seconds": 1.0, "images_per_second": 1000.0, "peak_memory_mb": 100.0}
    return TrialResult(**{**values, **changes})


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
    simple = {"model": "simple_cnn", "data": "fer2013"}
    record = TrialRecord(name, state, config or simple, parameters or {}, result=result)
    return Candidate(sweep, record, result, fingerprint)
