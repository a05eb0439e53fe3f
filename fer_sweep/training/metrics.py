"""What is computed from predictions: accuracy, confusion, recall, F1. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Confusion = tuple[tuple[int, ...], ...]
"""(K, K) counts: rows are true classes, columns predicted ones."""


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


def confusion_matrix(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64], classes: int) -> Confusion:
    """Count predictions (n,) by true class and predicted class, of so many classes."""
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
