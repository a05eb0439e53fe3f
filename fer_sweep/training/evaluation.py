"""Evaluation: large batches, evaluation mode, no augmentation."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_sweep.training.faces import Faces
from fer_sweep.training.precision import Precision

_BATCH = {"cpu": 256}
"""Images at once. On a CPU, activations that fit its caches; elsewhere enough to fill the device."""


@torch.inference_mode()
def evaluate(
    model: nn.Module, faces: Faces, positions: Tensor, precision: Precision
) -> tuple[float, npt.NDArray[np.int64]]:
    """Loss and predictions of a model on the images at ``positions`` (n,) of the data set.

    Returns:
        The mean cross-entropy against the hard labels, and the predicted classes (n,).
    """
    was_training = model.training
    model.eval()
    loss_sum = torch.zeros((), device=positions.device)
    predictions = []
    for part in torch.split(positions, _BATCH.get(positions.device.type, 2048)):
        logits = forward(model, faces.batch(part), precision)
        loss_sum += functional.cross_entropy(logits, faces.labels[part], reduction="sum")
        predictions.append(logits.argmax(dim=1))
    model.train(was_training)
    return float(loss_sum) / len(positions), torch.cat(predictions).cpu().numpy()


def forward(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Logits (B, 7) float32 of normalised images (B, 1, 48, 48), computed in ``precision``."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits: Tensor = model(images)
    return logits.float()
