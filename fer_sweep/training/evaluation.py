"""Evaluation: large batches, evaluation mode, no augmentation; and what is computed from predictions."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_sweep.records import StopReason
from fer_sweep.training.faces import Faces
from fer_sweep.training.precision import Precision

Confusion = tuple[tuple[int, ...], ...]
"""(K, K) counts: rows are true classes, columns predicted ones."""
_BATCH = {"cpu": 256, "mps": 512}
"""Images at once. On a CPU, activations that fit its caches; elsewhere enough to fill the device, whose memory Apple's
shares with the host."""


class Stopped(Exception):
    """An evaluation that was stopped before its end; the model is as it was."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    faces: Faces,
    positions: Tensor,
    precision: Precision,
    *,
    at_once: int | None = None,
    stop: Callable[[], StopReason | None] = lambda: None,
) -> tuple[float, npt.NDArray[np.int64]]:
    """Loss and predictions of a model on the images at ``positions`` (n,) of the data set.

    Args:
        model: Left in the mode it came in.
        faces: The data set.
        positions: Which images.
        precision: Arithmetic of the forward pass.
        at_once: Images at once, where memory does not hold as many as usual.
        stop: Asked before every batch.

    Returns:
        The mean cross-entropy against the hard labels, and the predicted classes (n,).

    Raises:
        Stopped: ``stop`` gave a reason.
    """
    was_training = model.training
    model.eval()
    usual = _BATCH.get(positions.device.type, 2048)
    loss_sum = torch.zeros((), device=positions.device)
    predictions = []
    for part in torch.split(positions, min(usual, at_once or usual)):
        if reason := stop():
            model.train(was_training)
            raise Stopped(reason)
        logits = forward(model, faces.batch(part), precision)
        loss_sum += functional.cross_entropy(logits, faces.labels[part], reduction="sum")
        predictions.append(logits.argmax(dim=1))
    model.train(was_training)
    return float(loss_sum) / len(positions), torch.cat(predictions).cpu().numpy()


def forward(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Logits (B, K) float32 of normalised images (B, C, H, W), computed in ``precision``."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits: Tensor = model(images)
    return logits.float()


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


def scores(confusion: Confusion) -> tuple[float, tuple[float, ...]]:
    """Macro F1 over the classes that occur among the true labels, and each class's recall, 0 if it does not occur."""
    counts = np.array(confusion, dtype=np.float64)
    right, true, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    f1 = np.divide(2 * right, true + predicted, out=np.zeros_like(right), where=true + predicted > 0)
    return float(f1[true > 0].mean()) if (true > 0).any() else 0.0, tuple(recall.tolist())
