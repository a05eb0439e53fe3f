"""A folder that holds an exported model: written beside its place, checked there, and only then moved to it."""

import json
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fer_sweep.data.dataset import FaceDataset
from fer_sweep.files import atomic_folder, write_atomically
from fer_sweep.inference.card import Card, render
from fer_sweep.inference.reference import compare, reference
from fer_sweep.records import ExportFormat
from fer_sweep.training.examination import Examinee


@dataclass(frozen=True)
class _Kind:
    writer: str
    """A module of this package, imported when it is needed: transformers takes seconds."""
    library: str
    """The hub's name for it."""
    described_in: str
    """Where fersweep says what the model is: config.json, unless the format has one of its own."""
    packages: tuple[str, ...]


_KINDS = {
    ExportFormat.SAFETENSORS: _Kind("safetensors_weights", "fersweep", "config.json", ("torch",)),
    ExportFormat.ONNX: _Kind("onnx_graph", "onnx", "config.json", ("torch", "onnx", "onnxruntime")),
    ExportFormat.HUGGINGFACE: _Kind("hugging_face", "transformers", "fersweep.json", ("torch", "transformers")),
}


@dataclass(frozen=True)
class Checked:
    """That an export is the trained model."""

    images: int
    """Validation images it was checked on."""
    largest_difference: float
    """Of two logits."""


def write_folder(
    examinee: Examinee, card: Card, format: ExportFormat, checked_on: FaceDataset, target: Path
) -> Checked:
    """Write a trained model and its card into a new folder, checked to give the logits it gave when it was trained.

    Args:
        examinee: The model, on the CPU.
        card: What its README.md tells.
        format: Which files.
        checked_on: On the validation images of this data set.
        target: The folder; there must be nothing there.

    Raises:
        InputError: There is something at ``target``, the architecture has no such format, or a package is missing.
        DataError: There are no validation images.
        StorageError: The folder cannot be written.
        FersweepError: What was written gives other logits; there is nothing at ``target``.
    """
    kind = _KINDS[format]
    writer = import_module(f"fer_sweep.inference.{kind.writer}")
    expected = reference(examinee, checked_on)
    with atomic_folder(target) as folder:
        writer.write(examinee, folder)
        described = json.dumps(_description(examinee, card), indent=2) + "\n"
        write_atomically(folder / kind.described_in, described)
        versions = {name: _version(name) for name in ("fersweep", *kind.packages)}
        write_atomically(folder / "README.md", render(card, library=kind.library, use=writer.USE, versions=versions))
        return Checked(len(expected.pixels), compare(writer.logits(folder, expected.pixels), expected))


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
    except PackageNotFoundError:  # run from its source, or built under another name
        return "unknown"
