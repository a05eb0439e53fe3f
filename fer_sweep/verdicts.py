"""The verdict on a trial, its thresholds and its reason. Pure."""

from collections.abc import Sequence

from fer_sweep.formatting import percent
from fer_sweep.records import TrialResult, Verdict

COLLAPSED_SHARE = 0.9
"""Collapsed: one class takes more than this share of the predictions on the validation split."""
OVERFIT_GAP = 0.15
"""Overfit: train_acc exceeds val_acc by more than this."""
UNDERFIT_TRAIN_ACC = 0.5
"""Underfit: train_acc is below this, though no single class took over. A linear model on FER2013's pixels
fits about 0.4 of the training images, SimpleCNN well over 0.6."""


def judge(*, diverged: bool, confusion: Sequence[Sequence[int]], train_acc: float, val_acc: float) -> Verdict:
    """The verdict on a trial at its best epoch: the first of ``Verdict`` that applies by this module's thresholds.

    It diverged if the loss of any epoch was not finite, whatever the epochs before it reached.
    """
    if diverged:
        return Verdict.DIVERGED
    _, share = _favourite(confusion)
    if share > COLLAPSED_SHARE:
        return Verdict.COLLAPSED
    if train_acc < UNDERFIT_TRAIN_ACC:
        return Verdict.UNDERFIT
    return Verdict.OVERFIT if train_acc - val_acc > OVERFIT_GAP else Verdict.BALANCED


def explain(result: TrialResult) -> str:
    """Why a trial has its verdict: the measurement and the threshold, in a sentence."""
    train, val = percent(result.train_acc, 1), percent(result.best_val_acc, 1)
    gap, limit = f"{100 * result.train_val_gap:.1f} points", f"{100 * OVERFIT_GAP:.0f}"
    match result.verdict:
        case Verdict.DIVERGED if result.best_epoch == 0:
            return "the loss became infinite or NaN in the first epoch"
        case Verdict.DIVERGED:
            best = result.best_epoch
            return f"the loss became infinite or NaN after epoch {result.epochs}; its best epoch was {best}"
        case Verdict.COLLAPSED:
            favourite, share = _favourite(result.confusion_matrix)
            found = f"it predicts {result.classes[favourite]} for {percent(share, 0)} of the validation images"
            return f"{found}; over {percent(COLLAPSED_SHARE, 0)} is a collapse"
        case Verdict.UNDERFIT:
            return f"its training accuracy is {train}; under {percent(UNDERFIT_TRAIN_ACC, 0)} is underfit"
        case Verdict.OVERFIT:
            return f"training images {train}, validation images {val}: a gap of {gap}; over {limit} is overfit"
        case Verdict.BALANCED:
            return f"it fits the training images ({train}), and its gap of {gap} is at most {limit}"


def _favourite(confusion: Sequence[Sequence[int]]) -> tuple[int, float]:
    """The index of the class predicted most often, and its share of the predictions; 0 without any."""
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    most = max(predicted)
    return predicted.index(most), most / sum(predicted) if most else 0.0
