"""Pictures of one's own, of any size and turned any way, to the 48x48 grey faces that models take."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fer_sweep.data.depth import levels, to_grey
from fer_sweep.data.images import MAX_BYTES, bounded, to_face
from fer_sweep.errors import DataError, InputError

MAX_PIXELS = 64_000_000
"""Of one picture; a phone's has 12 to 50 million."""
_SIDE = 2048
"""Pixels. A larger picture is made smaller first; a face of a fortieth of that still has as many as a model sees."""
_SMALLEST_FACE = 24
"""Pixels: the side of what the cascade was trained on."""


@dataclass(frozen=True)
class Square:
    """A square of a picture, which may have been made smaller and turned upright."""

    left: int
    """Pixels of that picture, as the others are."""
    top: int
    side: int
    pixels: npt.NDArray[np.uint8]
    """(48, 48): its grey values."""


def read_photo(path: Path) -> Image.Image:
    """A picture in grey, upright (by EXIF) and at most 2,048 pixels wide and high.

    Raises:
        DataError: It cannot be read, is no image, or too large.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file", hint="give the files of pictures")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", hint="make it readable") from error
    with bounded(content, str(path), max_pixels=MAX_PIXELS, remedy="save it again as one of these") as image:
        image.draft(None, (_SIDE, _SIDE))  # a large JPEG is then decoded at a part of its size
        scale = levels(image)
        grey = to_grey(ImageOps.exif_transpose(image), scale, str(path))
        grey.thumbnail((_SIDE, _SIDE))
        return grey


def centre(photo: Image.Image) -> Square:
    """The largest square in the middle of a grey picture."""
    side = min(photo.size)
    return _square(photo, (photo.width - side) // 2, (photo.height - side) // 2, side)


def largest_face(photo: Image.Image, label: str) -> tuple[Square, int]:
    """The largest face that looks at the camera, and how many there are.

    By OpenCV's Haar cascade, whose data its package holds. FER2013's own faces were cut out by OpenCV (Goodfellow et
    al. 2013), and so tightly: in the images of FER2013 this cascade's square is 0.97 of the image's side (the median).

    Raises:
        DataError: There is none.
        InputError: OpenCV is not installed, or a version without the cascade.
    """
    smallest = max(_SMALLEST_FACE, min(photo.size) // 20)
    found = _cascade().detectMultiScale(np.asarray(photo), 1.1, 5, minSize=(smallest, smallest))
    if not len(found):
        raise DataError(
            f"{label}: no face was found that looks at the camera",
            hint="without --crop-face the square in the middle is taken; cut the face out yourself for that",
        )
    left, top, side, _ = max((tuple(map(int, box)) for box in found), key=lambda box: box[2])
    return _square(photo, left, top, side), len(found)


def _cascade() -> Any:
    try:
        cv2: Any = importlib.import_module("cv2")  # optional, slow to import, and its stubs lack cv2.data
        return cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError):  # OpenCV 5 has it no more
        raise InputError(
            "--crop-face needs OpenCV 4, which is not installed here",
            hint="pip install 'fersweep[faces]', or cut the face out yourself and leave --crop-face out",
        ) from None


def _square(photo: Image.Image, left: int, top: int, side: int) -> Square:
    return Square(left, top, side, to_face(photo.crop((left, top, left + side, top + side))))
