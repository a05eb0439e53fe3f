"""What an export is held to: the trained model's own logits on validation images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fer_sweep.data.dataset import FaceDataset, Split
from fer_sweep.errors import DataError, FersweepError
from fer_sweep.training.evaluation import forward
from fer_sweep.training.examination import Examinee

TOLERANCE = 1e-4
"""By how much a logit may differ, as a share of the largest one or of 1: fp32 sums in another order differ by 1e-6."""
IMAGES = 256
"""Validation images an export is checked on, evenly spaced over the split."""


@dataclass(frozen=True)
class Reference:
    """Some validation images and what the trained model says to them."""

    pixels: npt.NDArray[np.uint8]
    """(n, 1, 48, 48) grey values, 0 to 255."""
    logits: npt.NDArray[np.float32]
    """(n, 7)."""


def reference(examinee: Examinee, dataset: FaceDataset) -> Reference:
    """What a model says to validation images, in fp32.

    Raises:
        DataError: The data set has no validation images.
    """
    positions = dataset.indices(Split.VAL)
    if not len(positions):
        raise DataError(f"data set {dataset.name} has no validation images", hint="give another one with --data")
    chosen = positions[np.linspace(0, len(positions) - 1, min(IMAGES, len(positions)), dtype=np.int64)]
    pixels = dataset.images[chosen].reshape(-1, *examinee.spec.shape)
    return Reference(pixels, logits_of(examinee, pixels))


@torch.inference_mode()
def logits_of(examinee: Examinee, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, 7) of grey values (n, 1, 48, 48), in fp32 whatever the training's arithmetic was."""
    batch = torch.from_numpy(pixels).to(examinee.device).float().sub_(examinee.pixel_mean).div_(examinee.pixel_std)
    return forward(examinee.model, batch, "fp32").cpu().numpy()


def compare(found: npt.NDArray[np.float32], expected: Reference) -> float:
    """The largest difference of two models' logits (n, 7).

    Raises:
        FersweepError: It is over TOLERANCE, or no number.
    """
    largest = float(np.abs(found - expected.logits).max())
    limit = TOLERANCE * max(1.0, float(np.abs(expected.logits).max()))
    if not largest <= limit:
        raise FersweepError(
            f"what was exported is not the model that was trained: a logit differs by {largest:.2g}, and {limit:.2g} "
            f"is allowed, on {len(found)} validation images; nothing was written",
            hint="take another --format, and report this with the versions that fersweep doctor shows",
        )
    return largest
