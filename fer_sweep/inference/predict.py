"""``fersweep predict``: expressions on the user's own pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_sweep.data.images import ENDINGS, Square, centre, largest_face, read_photo
from fer_sweep.errors import DataError, InputError
from fer_sweep.inference.loading import load_model
from fer_sweep.records import FER2013, Averaging

MOST_NAMED = 10
"""Pictures of a folder that cannot be used and are named."""


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
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Prediction, ...]:
    """Predict the expressions on pictures, in one batch, by the model that ``load_model`` finds.

    Args:
        images: Files, and folders of which each picture is taken, by name; subfolders are not.
        crop_face: Use the largest face in each picture instead of its central square.
        note: Gets a line about what is skipped in a folder.

    Raises:
        DataError: Files are not images, too large, or without a face, which it names; or nothing in a folder can be
            used.
        InputError: OpenCV is not installed, or the model takes other images.
    """
    shown = _read(images, crop_face, note)
    examinee = load_model(folder, device=device, threads=threads)
    from fer_sweep.training.examination import probabilities  # only here: it imports torch

    if examinee.spec.shape != FER2013.shape:
        channels, height, width = examinee.spec.shape
        raise InputError(
            f"predict turns pictures into {FER2013.width}x{FER2013.height} grey images, but this model takes "
            f"{width}x{height} images with {channels} channel{'s' if channels > 1 else ''}",
            hint="load it in Python with fer_sweep.training.examination.load_examinee",
        )
    faces = np.stack([part.pixels for _, part, _ in shown])
    found = probabilities(examinee, faces, np.arange(len(faces)), Averaging.NONE)
    return tuple(
        Prediction(image, dict(zip(examinee.spec.classes, map(float, row), strict=True)), part, count)
        for row, (image, part, count) in zip(found, shown, strict=True)
    )


def _read(given: Sequence[Path], crop_face: bool, note: Callable[[str], None]) -> list[tuple[Path, Square, int | None]]:
    shown: list[tuple[Path, Square, int | None]] = []
    wrong: list[DataError] = []
    for path in given:
        is_folder = path.is_dir()
        unusable: list[DataError] = []
        for image in _pictures_in(path, note) if is_folder else [path]:
            try:
                photo = read_photo(image)
                part, count = largest_face(photo, str(image)) if crop_face else (centre(photo), None)
                shown.append((image, part, count))
            except DataError as error:
                unusable.append(error)
        if not is_folder or (unusable and not shown):
            wrong += unusable
            continue
        for skipped in unusable[:MOST_NAMED]:
            note(f"skipped: {skipped}")
        if len(unusable) > MOST_NAMED:
            note(f"skipped: {len(unusable) - MOST_NAMED:,} more pictures of {path}")
    if wrong:
        hints = dict.fromkeys(error.hint for error in wrong if error.hint)
        raise DataError("\n".join(str(error) for error in wrong), hint="; ".join(hints))
    return shown


def _pictures_in(folder: Path, note: Callable[[str], None]) -> list[Path]:
    """The pictures directly in a folder, by name."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}", hint="make it readable") from error
    pictures = [path for path in entries if path.suffix.lower() in ENDINGS and not path.is_dir()]
    others = [path.name for path in entries if path not in set(pictures)]
    if not pictures:
        holds = f"it holds {', '.join(others[:5])}" if others else "it is empty"
        raise DataError(f"{folder}: no pictures directly in this folder; {holds}", hint="give the folder of the files")
    if others:
        note(f"{folder}: {len(pictures):,} pictures; skipped {len(others):,} other entries, such as {others[0]}")
    return pictures
