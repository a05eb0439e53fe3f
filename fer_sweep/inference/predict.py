"""``fersweep predict``: a trained model on pictures of one's own."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_sweep.data.photos import Square, centre, largest_face, read_photo
from fer_sweep.errors import DataError
from fer_sweep.records import Averaging
from fer_sweep.worker.slots import one_slot


@dataclass(frozen=True)
class Prediction:
    """What a model says to one picture."""

    image: Path
    probabilities: Mapping[str, float]
    """By class, in the order of CLASSES; they add up to 1."""
    square: Square
    """The part of the picture that was shown to the model."""
    faces: int | None
    """How many were found; None if nobody looked for any."""

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
    """Show pictures to a trained model, all of them together.

    Args:
        folder: The model's, with its weights and config.json.
        images: Files.
        crop_face: Look for a face in each and take that, in place of the square in its middle.
        device: ``auto``, ``cpu``, or a GPU's number or UUID.
        threads: CPU threads; None for all cores.

    Raises:
        DataError: Some are no images, too large, or show no face; it names all of them.
        InputError: There is no such device, or the package that finds faces is not installed.
        CheckpointError: The model cannot be loaded.
    """
    shown = _read(images, crop_face=crop_face)
    slot = one_slot(device, threads)
    os.environ.update(slot.environment)
    import numpy as np
    import torch  # only here: agent/ meets torch where something is trained or evaluated

    from fer_sweep.training.examination import load_examinee, probabilities

    torch.set_num_threads(threads or slot.threads)
    examinee = load_examinee(folder, torch.device(slot.device))
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
