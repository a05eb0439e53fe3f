"""Decode images to grey: those of data sets, and the user's own pictures for predictions.

Images with more than 8 bits a pixel are scaled by the range of their kind, never by their own extremes.
"""

import contextlib
import importlib
import io
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fer_sweep.data.kinds import kind
from fer_sweep.errors import DataError, InputError
from fer_sweep.records import FER2013

Progress = Callable[[str, int, int], None]
"""Called with the stage, how many are done and how many there are."""

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "PPM", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "PCX", "SGI", "SUN", "QOI")
"""Of Pillow's decoders, those of single pictures that say what they are and what white is.

Not read: EPS and WMF (other programs draw them), TGA (damage cannot be told from an image), FITS, IM and SPIDER (they
do not state what white is), icons, textures and films (several pictures), and HDF5 and MPEG (Pillow decodes neither).
"""
ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm"}
    | {".webp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".pcx", ".sgi"}
    | {".ras", ".qoi"}
)
"""Of files in these formats, in small letters."""
TIFF_COMPRESSIONS = frozenset(
    {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "jpeg", "group3", "group4"}
    | {"tiff_ccitt"}
)
"""Not lzma, whose header may ask for 4 GiB, nor what no program has written for decades, such as the older JPEG."""
MAX_IMAGE_BYTES = 32 << 20
"""Of one encoded image."""
MAX_PIXELS = 64_000_000
"""Of one image; a phone's has 12 to 50 million."""

_PHOTO_SIDE = 2048
"""Pixels. A larger picture is made smaller first; a face of a fortieth of that still has as many as a model sees."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""Two tags of TIFF, and a value of the second."""
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
"""Byte order by how a TIFF begins; BigTIFF, for files over 4 GB, is not among them."""
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value by its type, where it is not one."""
_MOST_TIFF_VALUES = 65_536
"""Of one entry in a TIFF's directory, such as the places of its strips. Pillow takes minutes for millions of them."""
_SIZE = (FER2013.width, FER2013.height)
_CHUNK = 256
T = TypeVar("T")


class Change(StrEnum):
    """What was done to an image, as a note counts it."""

    CONVERTED = f"images were not {FER2013.width}x{FER2013.height} grey and were converted to it"
    SCALED = "images had more than 8 bits a pixel and were scaled to 8 from the full range of their kind"
    FIRST = "files hold several images: the first of each was taken"


@dataclass(frozen=True)
class Square:
    """A square of a picture, which may have been made smaller and turned upright."""

    left: int
    """Pixels of that picture, as are the others."""
    top: int
    side: int
    pixels: npt.NDArray[np.uint8]
    """Its grey values in FER2013's size: (height, width)."""


def decode(content: bytes, label: str) -> tuple[npt.NDArray[np.uint8], frozenset[Change]]:
    """One encoded image as grey values in FER2013's size, and what was changed; DataError if it cannot be read."""
    with _opened(content, label) as image:
        changes: set[Change] = set()
        if image.format != "MPO" and getattr(image, "is_animated", False):
            changes.add(Change.FIRST)  # the second image of a camera's JPEG (MPO) is a preview of the same
        if image.mode == "L" and image.size == _SIZE:
            return np.asarray(image), frozenset(changes)
        changes.add(Change.CONVERTED)
        if _is_deep(image):
            changes.add(Change.SCALED)
        return _to_face(_to_grey(image, label)), frozenset(changes)


def decode_all(
    items: Sequence[T], read: Callable[[T], tuple[str, bytes]], progress: Progress
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Decode many images in order, in threads that call ``read`` for the label and the content of each.

    Returns grey values in FER2013's size, (N, height, width), and a note for each kind of change. A DataError is of the
    first image, in order, that cannot be read.
    """
    images = np.empty((len(items), *FER2013.stored_shape), dtype=np.uint8)

    def work(start: int) -> Counter[Change]:
        counts: Counter[Change] = Counter()
        for position in range(start, min(start + _CHUNK, len(items))):
            label, content = read(items[position])
            images[position], done = decode(content, label)
            counts.update(done)
        return counts

    changes: Counter[Change] = Counter()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode") as pool:
        try:
            for number, counts in enumerate(pool.map(work, range(0, len(items), _CHUNK)), 1):
                changes += counts
                progress("decoding images", min(number * _CHUNK, len(items)), len(items))
        finally:
            pool.shutdown(cancel_futures=True)
    return images, tuple(f"{changes[change]:,} {change}" for change in Change if changes[change])


def read_photo(path: Path) -> Image.Image:
    """A picture in grey, upright (by EXIF) and at most 2,048 pixels wide and high; DataError if it cannot be read."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file", hint="give the files of pictures")
        with path.open("rb") as stream:
            content = stream.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", hint="make it readable") from error
    with _opened(content, str(path)) as image:
        image.draft(None, (_PHOTO_SIDE, _PHOTO_SIDE))  # a large JPEG is then decoded at a part of its size
        ImageOps.exif_transpose(image, in_place=True)
        grey = _to_grey(image, str(path))
        grey.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE))
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
    try:
        cv2: Any = importlib.import_module("cv2")  # optional, slow to import, and its stubs lack cv2.data
        cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError):  # OpenCV 5 has it no more
        raise InputError(
            "--crop-face needs OpenCV 4, which is not installed",
            hint="pip install 'fersweep[faces]', or cut the face out yourself and leave --crop-face out",
        ) from None
    smallest = max(24, min(photo.size) // 20)  # 24 pixels: the side of what the cascade was trained on
    found = cascade.detectMultiScale(np.asarray(photo), 1.1, 5, minSize=(smallest, smallest))
    if not len(found):
        raise DataError(
            f"{label}: no face was found that looks at the camera",
            hint="without --crop-face the square in the middle is taken; cut the face out yourself for that",
        )
    left, top, side, _ = max((tuple(map(int, box)) for box in found), key=lambda box: box[2])
    return _square(photo, left, top, side), len(found)


def _square(photo: Image.Image, left: int, top: int, side: int) -> Square:
    return Square(left, top, side, _to_face(photo.crop((left, top, left + side, top + side))))


def _to_face(grey: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(grey.resize(_SIZE, Image.Resampling.BILINEAR))


@contextlib.contextmanager
def _opened(content: bytes, label: str) -> Iterator[Image.Image]:
    """One encoded image, opened and not yet decoded; any error of the block becomes a DataError, too."""
    if not content:
        raise DataError(f"{label}: an empty file in place of an image", hint="download it again")
    if len(content) > MAX_IMAGE_BYTES:
        raise DataError(f"{label}: {len(content) >> 20} MiB in one image", hint="no image of a face is so large")
    try:
        if content[:2] in (b"II", b"MM"):
            _check_tiff(content, label)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{label}: an image of {image.width}x{image.height} pixels is refused",
                    hint="no image of a face is so large; resize it if it is meant",
                )
            compression = image.info.get("compression", "raw") if image.format == "TIFF" else "raw"
            if compression not in TIFF_COMPRESSIONS:
                raise DataError(f"{label}: a TIFF compressed as {compression} is not read", hint="save it as PNG")
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds over damaged content, SyntaxError among them
        other = kind(content)
        if other is not None:
            raise DataError(f"{label}: not an image but {other[0]}", hint=other[1]) from error
        raise DataError(
            f"{label}: not a readable image: {error or type(error).__name__}",
            hint="it is damaged, or of a kind that is not read: download it again, or save it as PNG",
        ) from error


def _check_tiff(content: bytes, label: str) -> None:
    """Refuse a TIFF whose first directory Pillow would take gigabytes or minutes to read, before it does."""
    order = _TIFF_ORDERS.get(content[:4])
    if order is None:
        raise DataError(f"{label}: a TIFF of an unusual kind is refused", hint="save it as PNG")
    start = struct.unpack_from(f"{order}L", content, 4)[0]
    total = 0
    for number in range(struct.unpack_from(f"{order}H", content, start)[0]):
        _, kind, count = struct.unpack_from(f"{order}HHL", content, start + 2 + 12 * number)
        total += count * _TIFF_SIZES.get(kind, 1)
        is_text_or_bytes = kind in (1, 2, 7)  # which Pillow keeps as they are
        if total > len(content) or (count > _MOST_TIFF_VALUES and not is_text_or_bytes):
            raise DataError(f"{label}: a TIFF with {count:,} values of one kind is refused", hint="save it as PNG")


def _is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits a pixel; Pillow converts 8 well, and cuts deeper ones off at white."""
    return image.mode.startswith(("I", "F"))


def _to_grey(image: Image.Image, label: str) -> Image.Image:
    """An image in 8 bits of grey.

    16 bits: 0 to 65,535 (12 bits of a TIFF: 4,095; signed: 32,767). Floats: 0 to 1, as Photoshop and scikit-image write
    them. TIFF's integers of 32 bits are taken for 16 bits in a larger cell: Pillow writes those. Values that do not fit
    are a DataError.
    """
    if image.mode == "LAB":
        return image.getchannel("L")
    if not _is_deep(image):
        return image.convert("L")
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    white = 1 if image.mode == "F" else (1 << min(bits, 16)) - 1
    if image.mode == "I" and bits == 16 and tags:  # signed
        white = 32_767
    values = np.asarray(image)
    low, high = values.min(), values.max()
    wrong = ""
    if not (low >= 0 and high <= white):  # of a NaN, too
        wrong = f"its pixels run from {low} to {high}, and white would be {white}"
    elif image.mode != "F" and bits > 16 and 0 < high <= 255:
        wrong = f"its pixels are 32-bit integers up to {high}: of 8 bits or of 16"
    if wrong:
        hint = "save it with 8 or 16 bits a pixel, as PNG, and black as 0"
        raise DataError(f"{label}: its scale is not known: {wrong}", hint=hint)
    grey = np.rint(values * (255 / white)).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey)
