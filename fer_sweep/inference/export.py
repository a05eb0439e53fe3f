"""``fersweep export``: a trained model in another format, checked before it is put in place.

A format is a module with two functions: ``write(examinee, folder)`` writes a model's files, and ``logits(folder,
pixels)`` evaluates these with the library that others use. ``LIBRARY``, ``PACKAGES`` and ``USE`` are for its card.
"""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import torch

from fer_sweep.config.trial import flatten
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import FaceDataset, Split
from fer_sweep.errors import DataError, FersweepError, InputError, printable
from fer_sweep.files import atomic_folder, home, read_object, write_atomically
from fer_sweep.inference.loading import load_model
from fer_sweep.openings import openings_in
from fer_sweep.records import ExportFormat, TrialResult
from fer_sweep.training.evaluation import forward
from fer_sweep.training.examination import Examinee, check_on_validation
from fer_sweep.training.weights import weights_in
from fer_sweep.verdicts import explain

TOLERANCE = 1e-4
"""By how much a logit may differ, as a share of the largest one or of 1: fp32 sums in another order differ by 1e-6."""
IMAGES = 256
"""Number of validation images for the check, evenly spaced over the split."""

_WRITERS = {
    ExportFormat.SAFETENSORS: "safetensors_weights",
    ExportFormat.ONNX: "onnx_graph",
    ExportFormat.HUGGINGFACE: "hugging_face",
}
"""Modules of this package; imported on demand, because transformers takes seconds."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    folder: Path
    files: tuple[str, ...]
    checked_on: int
    """Number of validation images it was checked on."""
    largest_difference: float
    """Largest difference of a logit from the trained model's."""
    tolerance: float
    """Allowed difference, relative to the largest logit or 1."""


def export_model(
    folder: Path, target: Path, format: ExportFormat, *, name: str, data: str | None = None, threads: int | None = None
) -> Exported:
    """Write a trained model, which ``load_model`` finds, into a new folder, with a model card.

    Args:
        name: The model's name on its card.
        data: The data set with the validation images for the check; None for the one it was trained on.

    Raises:
        InputError: ``target`` exists, the model has no such format, or a package is not installed.
        CheckpointError: The model differs from the trained one.
        DataError: The data set is not prepared, or has no validation images.
        FersweepError: The export gives other logits than the model; ``target`` is not created.
    """
    examinee = load_model(folder, threads=threads)
    if examinee.spec.channels != 1:
        raise InputError(
            f"export writes models of grey images, but this one takes {examinee.spec.channels} channels",
            hint="load it in Python with fer_sweep.training.examination.load_examinee",
        )
    dataset = open_dataset(data or examinee.config.data)
    is_own = dataset.name == examinee.config.data
    if is_own:
        check_on_validation(examinee, dataset)
    pixels = _check_images(examinee, dataset)
    writer = import_module(f"fer_sweep.inference.{_WRITERS[format]}")
    result = _result(folder)
    digest = hashlib.sha256(weights_in(folder).read_bytes()).hexdigest()
    card = _render_card(
        name=name,
        config=examinee.config,
        parameters=flatten(examinee.config.model_dump()),
        spec=examinee.spec,
        data=dataset.info if is_own else None,
        result=result,
        verdict=explain(result) if result else "",
        openings=[opening for opening in openings_in(home()) if opening.weights == digest],
        library=writer.LIBRARY,
        use=writer.USE,
        versions={package: _version(package) for package in ("fersweep", *writer.PACKAGES)},
    )
    with atomic_folder(target) as temporary:
        writer.write(examinee, temporary)
        has_own = (temporary / "config.json").exists()
        write_atomically(temporary / ("fersweep.json" if has_own else "config.json"), _description(examinee, result))
        write_atomically(temporary / "README.md", card)
        # safetensors writes files that only their owner can read.
        mode = (temporary / "README.md").stat().st_mode
        for path in temporary.iterdir():
            path.chmod(mode)
        difference = compare(writer.logits(temporary, pixels), logits_of(examinee, pixels))
    files = tuple(sorted(path.name for path in target.iterdir()))
    return Exported(target, files, len(pixels), difference, TOLERANCE)


def _check_images(examinee: Examinee, dataset: FaceDataset) -> npt.NDArray[np.uint8]:
    """Some validation images, as raw values (n, C, H, W)."""
    positions = dataset.indices(Split.VAL)
    if not len(positions):
        raise DataError(f"data set {dataset.name} has no validation images", hint="use another one with --data")
    chosen = positions[np.linspace(0, len(positions) - 1, min(IMAGES, len(positions)), dtype=np.int64)]
    return dataset.images[chosen].reshape(-1, *examinee.spec.shape)


def _result(folder: Path) -> TrialResult | None:
    # Of a trial, or of an export.
    values = read_object(folder / "result.json") or read_object(folder / "config.json").get("result")
    with contextlib.suppress(ValueError):
        return TrialResult.model_validate(values)
    return None


def _render_card(*, use: str, **about: Any) -> str:
    """The model card (README.md): Markdown with the front matter of Hugging Face's hub."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fer_sweep.inference"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["code"] = _code
    use = templates.from_string(use).render(about)
    return templates.get_template("card.md.j2").render(about, use=use, Split=Split)


def _code(value: object) -> str:
    """A value as inline code, safe in a table and a sentence."""
    text = printable(str(value)).replace("\n", " ").replace("`", "'").replace("|", "\\|")
    return f"`{text}`"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from source
        return "unknown"


def _description(examinee: Examinee, result: TrialResult | None) -> str:
    plain = {
        "classes": examinee.spec.classes,
        "pixel_mean": examinee.pixel_mean,
        "pixel_std": examinee.pixel_std,
        "val_acc": examinee.val_acc,
        "trial": examinee.config.model_dump(mode="json"),
        "result": result.model_dump(mode="json") if result else None,
    }
    return json.dumps(plain, indent=2) + "\n"


@torch.inference_mode()
def logits_of(examinee: Examinee, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, K) of raw values (n, C, H, W), in fp32 whatever the precision of the training."""
    batch = torch.from_numpy(pixels).to(examinee.device).float().sub_(examinee.pixel_mean).div_(examinee.pixel_std)
    return forward(examinee.model, batch, "fp32").cpu().numpy()


def compare(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """The largest difference of the logits (n, K) of an export and of the trained model.

    Raises:
        FersweepError: It exceeds TOLERANCE or is NaN.
    """
    largest = float(np.abs(found - expected).max())
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not largest <= limit:
        raise FersweepError(
            f"the export differs from the trained model: a logit differs by {largest:.2g} (tolerance {limit:.2g}) on "
            f"{len(found)} validation images; nothing was written",
            hint="use another --format, and report this with the output of fersweep doctor",
        )
    return largest
