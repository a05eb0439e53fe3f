"""Verdicts follow from thresholds, and each is explained in one sentence with its figures."""

from typing import Any

import pytest

from fer_sweep.records import Verdict
from fer_sweep.verdicts import explain, judge
from tests.support.records import make_result


def columns(*shares: int) -> list[list[int]]:
    return [[*shares, *[0] * (7 - len(shares))], *[[0] * 7 for _ in range(6)]]


@pytest.mark.parametrize(
    ("diverged", "predicted", "train_acc", "val_acc", "verdict"),
    [
        (True, (50, 50), 0.9, 0.9, Verdict.DIVERGED),
        (False, (91, 9), 0.26, 0.25, Verdict.COLLAPSED),  # also underfit, but collapsed says more
        (False, (90, 10), 0.26, 0.25, Verdict.UNDERFIT),
        (False, (50, 50), 0.49, 0.2, Verdict.UNDERFIT),
        (False, (50, 50), 0.95, 0.67, Verdict.OVERFIT),
        (False, (50, 50), 0.70, 0.60, Verdict.BALANCED),
    ],
)
def test_verdict(
    diverged: bool, predicted: tuple[int, ...], train_acc: float, val_acc: float, verdict: Verdict
) -> None:
    assert judge(diverged=diverged, confusion=columns(*predicted), train_acc=train_acc, val_acc=val_acc) is verdict


@pytest.mark.parametrize(
    ("verdict", "changes", "words"),
    [
        ("diverged", {"best_epoch": 0}, ["in the first epoch"]),
        ("diverged", {"best_epoch": 2, "epochs": 5}, ["epoch 5", "best epoch was 2"]),
        ("collapsed", {"confusion_matrix": columns(5, 95)}, ["disgust for 95 % of the validation images", "90 %"]),
        ("underfit", {"train_acc": 0.412}, ["training accuracy is 41.2 %", "50 %"]),
        ("overfit", {"best_val_acc": 0.6, "train_val_gap": 0.25}, ["60.0 %", "25.0 points", "over 15"]),
        ("balanced", {"train_acc": 0.66, "train_val_gap": 0.078}, ["66.0 %", "7.8 points", "15"]),
    ],
)
def test_explanation_names_measurement_and_threshold(verdict: str, changes: dict[str, Any], words: list[str]) -> None:
    reason = explain(make_result(verdict=verdict, **changes))
    assert all(word in reason for word in words)
    assert "\n" not in reason
