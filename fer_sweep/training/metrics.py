"""What is computed from predictions: accuracy, confusion, recall, F1, and the verdict with its thresholds. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_sweep.records import CLASSES, Verdict

COLLAPSED_SHARE = 0.9
"""Collapsed: one class takes more than this share of the predictions on the validation split."""
OVERFIT_GAP = 0.15
"""Overfit: train_acc exceeds val_acc by more than this."""
UNDERFIT_TRAIN_ACC = 0.5
"""Underfit: train_acc is below this, though no single class took over. A linear model on FER2013's pixels
fits about 0.4 of the training images, SimpleCNN well over 0.6."""

Confusion = tuple[tuple[int, ...], ...]
"""7x7 counts: rows are true classes, columns predicted ones."""


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says."""

    accuracy: float
    macro_f1: float
    """Mean F1 of the classes that occur among the true labels."""
    recall: tuple[float, ...]
    """By class; 0 for one that does not occur."""


def accuracy(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> float:
    """Share of right predictions; 0 for no images.

    >>> accuracy(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 6]))
    0.75
    """
    return float(np.mean(labels == predictions)) if len(labels) else 0.0


def confusion_matrix(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> Confusion:
    """Count predictions (n,) by true class and predicted class."""
    classes = len(CLASSES)
    counts = np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(row) for row in counts.tolist())


def scores(confusion: Confusion) -> Scores:
    """Accuracy, macro F1 and recall of a confusion matrix."""
    counts = np.array(confusion, dtype=np.float64)
    right, true, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    f1 = np.divide(2 * right, true + predicted, out=np.zeros_like(right), where=true + predicted > 0)
    return Scores(
        accuracy=float(right.sum() / counts.sum()) if counts.sum() else 0.0,
        macro_f1=float(f1[true > 0].mean()) if (true > 0).any() else 0.0,
        recall=tuple(recall.tolist()),
    )


def judge(*, diverged: bool, confusion: Sequence[Sequence[int]], train_acc: float, val_acc: float) -> Verdict:
    """The verdict on a trial, from its best epoch; the first that applies of the order of ``Verdict``.

    ... diverged if the loss ever ceased to be finite, whatever the epochs before it reached;
    ... collapsed, underfit, overfit by the thresholds of this module; balanced otherwise.
    """
    counts = np.array(confusion)
    if diverged:
        return Verdict.DIVERGED
    if counts.sum() and counts.sum(axis=0).max() > COLLAPSED_SHARE * counts.sum():
        return Verdict.COLLAPSED
    if train_acc < UNDERFIT_TRAIN_ACC:
        return Verdict.UNDERFIT
    return Verdict.OVERFIT if train_acc - val_acc > OVERFIT_GAP else Verdict.BALANCED
