"""``fersweep predict``: expressions on the user's own pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_sweep.data.images import Square, centre, largest_face, read_photo
from fer_sweep.errors import DataError, InputError
from fer_sweep.inference.loading import load_model
from fer_sweep.records import FER2013, Averaging


@dataclass(frozen=True)
class Prediction:
    """The prediction for one picture."""

    image: Path
    probabilities: Mapping[str, float]
    """By class, in the order of the data's classes; their sum is 1."""
    square: Square
    """The part of the picture that the model saw."""
    faces: int | None
    """The number of faces found; None without a search."""

    @property
    def expression(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def predict_images(
    folder: Path,
    images: Sequence[Path],
    *,
    crop_face: bool = False,
    device: str = "auto",
    threads: int | None = None,
) -> tuple[Prediction, ...]:
    """Predict the expressions on pictures, in one batch, by the model that ``load_model`` finds.

    Args:
        crop_face: Use the largest face in each picture instead of its central square.

    Raises:
        DataError: Some are not images, too large, or without a face; it names all of them.
        InputError: OpenCV is not installed, or the model takes other images.
    """
    shown = _read(images, crop_face=crop_face)
    examinee = load_model(folder, device=device, threads=threads)
    from fer_sweep.training.examination import probabilities  # only here: it imports torch

    if examinee.spec.shape != FER2013.shape:
        channels, height, width = examinee.spec.shape
        raise InputError(
            f"predict turns pictures into {FER2013.width}x{FER2013.height} grey images, but this model takes "
            f"{width}x{height} images with {channels} channel{'s' if channels > 1 else ''}",
            hint="load it in Python with fer_sweep.training.examination.load_examinee",
        )
    faces = np.stack([part.pixels for part, _ in shown])
    found = probabilities(examinee, faces, np.arange(len(faces)), Averaging.NONE)
    return tuple(
        Prediction(image, dict(zip(examinee.spec.classes, map(float, row), strict=True)), part, count)
        for image, row, (part, count) in zip(images, found, shown, strict=True)
    )


def _read(images: Sequence[Path], *, crop_face: bool) -> list[tuple[Square, int | None]]:
    shown: list[tuple[Square, int | None]] = []
    wrong: list[DataError] = []
    for image in images:
        try:
            photo = read_photo(image)
            shown.append(largest_face(photo, str(image)) if crop_face else (centre(photo), None))
        except DataError as error:
            wrong.append(error)
    if wrong:
        hints = dict.fromkeys(error.hint for error in wrong if error.hint)
        raise DataError("\n".join(str(error) for error in wrong), hint="; ".join(hints))
    return shown
