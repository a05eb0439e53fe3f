"""The folder of an exported model: written to a temporary folder, checked there, then put in place."""

import json
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fer_sweep.data.dataset import FaceDataset, Split
from fer_sweep.errors import DataError, FersweepError
from fer_sweep.files import atomic_folder, write_atomically
from fer_sweep.inference.card import Card, render
from fer_sweep.records import ExportFormat
from fer_sweep.training.evaluation import forward
from fer_sweep.training.examination import Examinee

TOLERANCE = 1e-4
"""By how much a logit may differ, as a share of the largest one or of 1: fp32 sums in another order differ by 1e-6."""
IMAGES = 256
"""Number of validation images for the check, evenly spaced over the split."""


@dataclass(frozen=True)
class _Kind:
    writer: str
    """A module of this package; imported on demand, because transformers takes seconds."""
    library: str
    """Its name on the hub."""
    described_in: str
    """The file with fersweep's description: config.json, unless the format has its own."""
    packages: tuple[str, ...]


_KINDS = {
    ExportFormat.SAFETENSORS: _Kind("safetensors_weights", "fersweep", "config.json", ("torch",)),
    ExportFormat.ONNX: _Kind("onnx_graph", "onnx", "config.json", ("torch", "onnx", "onnxruntime")),
    ExportFormat.HUGGINGFACE: _Kind("hugging_face", "transformers", "fersweep.json", ("torch", "transformers")),
}


def write_folder(
    examinee: Examinee, card: Card, format: ExportFormat, checked_on: FaceDataset, target: Path
) -> tuple[int, float]:
    """Write a trained model and its card into a new folder, and check that it gives the trained model's logits.

    Args:
        examinee: The model, on the CPU.
        card: The content of its README.md.
        format: The format.
        checked_on: The data set with the validation images for the check.
        target: The folder; it must not exist.

    Returns:
        How many images it was checked on, and the largest difference of a logit.

    Raises:
        See ``export_model``.
    """
    kind = _KINDS[format]
    writer = import_module(f"fer_sweep.inference.{kind.writer}")
    expected = _reference(examinee, checked_on)
    with atomic_folder(target) as folder:
        writer.write(examinee, folder)
        described = json.dumps(_description(examinee, card), indent=2) + "\n"
        write_atomically(folder / kind.described_in, described)
        versions = {name: _version(name) for name in ("fersweep", *kind.packages)}
        write_atomically(folder / "README.md", render(card, library=kind.library, use=writer.USE, versions=versions))
        return len(expected.pixels), compare(writer.logits(folder, expected.pixels), expected)


def _description(examinee: Examinee, card: Card) -> dict[str, Any]:
    return {
        "classes": examinee.spec.classes,
        "pixel_mean": examinee.pixel_mean,
        "pixel_std": examinee.pixel_std,
        "val_acc": examinee.val_acc,
        "trial": examinee.config.model_dump(mode="json"),
        "result": card.result.model_dump(mode="json") if card.result else None,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from source
        return "unknown"


@dataclass(frozen=True)
class Reference:
    """Validation images and the trained model's logits."""

    pixels: npt.NDArray[np.uint8]
    """(n, 1, 48, 48) grey values, 0 to 255."""
    logits: npt.NDArray[np.float32]
    """(n, 7)."""


def _reference(examinee: Examinee, dataset: FaceDataset) -> Reference:
    """A model's logits on validation images, in fp32.

    Raises:
        DataError: The data set has no validation images.
    """
    positions = dataset.indices(Split.VAL)
    if not len(positions):
        raise DataError(f"data set {dataset.name} has no validation images", hint="use another one with --data")
    chosen = positions[np.linspace(0, len(positions) - 1, min(IMAGES, len(positions)), dtype=np.int64)]
    pixels = dataset.images[chosen].reshape(-1, *examinee.spec.shape)
    return Reference(pixels, logits_of(examinee, pixels))


@torch.inference_mode()
def logits_of(examinee: Examinee, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, 7) of grey values (n, 1, 48, 48), in fp32 whatever the precision of the training."""
    batch = torch.from_numpy(pixels).to(examinee.device).float().sub_(examinee.pixel_mean).div_(examinee.pixel_std)
    return forward(examinee.model, batch, "fp32").cpu().numpy()


def compare(found: npt.NDArray[np.float32], expected: Reference) -> float:
    """The largest difference of two models' logits (n, 7).

    Raises:
        FersweepError: It exceeds TOLERANCE or is NaN.
    """
    largest = float(np.abs(found - expected.logits).max())
    limit = TOLERANCE * max(1.0, float(np.abs(expected.logits).max()))
    if not largest <= limit:
        raise FersweepError(
            f"the export differs from the trained model: a logit differs by {largest:.2g} (tolerance {limit:.2g}) on "
            f"{len(found)} validation images; nothing was written",
            hint="use another --format, and report this with the output of fersweep doctor",
        )
    return largest
