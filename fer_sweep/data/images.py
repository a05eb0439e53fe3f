"""From encoded images to one uint8 array of grey images in FER2013's size, in threads."""

import contextlib
import io
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from fer_sweep.data.depth import levels, to_grey
from fer_sweep.errors import DataError
from fer_sweep.records import FER2013

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and how many there are."""

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "GIF", "TIFF")
"""Of Pillow's some forty decoders, those that face data sets come in and that are fuzzed all the time."""
ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".webp", ".gif"}
    | {".tif", ".tiff"}
)
"""Of files in these formats, in small letters."""
TIFF_COMPRESSIONS = frozenset({"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"})
"""The others bring a decoder of their own, such as fax and old JPEG, which faces do not need."""
MAX_PIXELS = 16_000_000
"""Of one image. A face is 2,304."""
MAX_BYTES = 32 << 20
"""Of one encoded image."""

MAX_TIFF_VALUES = 65_536
"""Of one entry in a TIFF's directory, such as the places of its strips. Pillow takes minutes for millions of them."""

_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
"""Byte order by how a TIFF begins; BigTIFF, for files over 4 GB, is not among them."""
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value by its type, where it is not one."""
_TIFF_BYTES = (1, 2, 7)
"""Types whose values Pillow keeps as they are."""
_CHUNK = 256
T = TypeVar("T")


class Change(StrEnum):
    """What was done to an image, as a note counts it."""

    CONVERTED = f"images were not {FER2013.width}x{FER2013.height} grey and were converted to it"
    SCALED = "images had more than 8 bits a pixel and were scaled to 8 from the full range of their kind"
    FIRST = "files hold several images: the first of each was taken"


def decode(content: bytes, label: str) -> tuple[npt.NDArray[np.uint8], frozenset[Change]]:
    """One encoded image as (48, 48) grey values, and what had to be done for that.

    Raises:
        DataError: It is no image, truncated, too large, or in a scale that is not known.
    """
    with bounded(content, label, max_pixels=MAX_PIXELS, remedy="download the data again") as image:
        # The second image of a camera's JPEG is a preview of the same.
        several = {Change.FIRST} if image.format != "MPO" and getattr(image, "is_animated", False) else set()
        scale = levels(image)
        if scale is None and image.mode == "L" and image.size == (FER2013.width, FER2013.height):
            return np.asarray(image), frozenset(several)
        changes = several | {Change.CONVERTED} | ({Change.SCALED} if scale is not None else set())
        return to_face(to_grey(image, scale, label)), frozenset(changes)


def to_face(grey: Image.Image) -> npt.NDArray[np.uint8]:
    """A grey image of any size as (48, 48) values, stretched to a square where it is none."""
    return np.asarray(grey.resize((FER2013.width, FER2013.height), Image.Resampling.BILINEAR))


@contextlib.contextmanager
def bounded(content: bytes, label: str, *, max_pixels: int, remedy: str) -> Iterator[Image.Image]:
    """One encoded image, opened and not yet decoded; whatever goes wrong in the block, too, is the image's fault.

    Args:
        content: The file.
        label: What messages call it.
        max_pixels: Width by height that is still decoded.
        remedy: What to do about a file that is damaged.

    Raises:
        DataError: It is no image, truncated, or too large.
    """
    if not content:
        raise DataError(f"{label}: an empty file in place of an image", hint=remedy)
    if len(content) > MAX_BYTES:
        raise DataError(f"{label}: {len(content) >> 20} MiB in one image", hint="no image of a face is so large")
    try:
        if content[:2] in (b"II", b"MM"):
            _check_tiff(content, label)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
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
        raise DataError(
            f"{label}: not a readable image: {error or type(error).__name__}",
            hint=f"the file is damaged or of another kind than {', '.join(FORMATS)}: {remedy}",
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
        if total > len(content) or (count > MAX_TIFF_VALUES and kind not in _TIFF_BYTES):
            raise DataError(f"{label}: a TIFF with {count:,} values of one kind is refused", hint="save it as PNG")


def decode_all(
    items: Sequence[T],
    read: Callable[[T], tuple[str, bytes]],
    progress: Progress,
    *,
    threaded_read: bool = True,
) -> tuple[npt.NDArray[np.uint8], Counter[Change]]:
    """Decode many images, keeping their order.

    Args:
        items: What ``read`` turns into a label for messages and the encoded image.
        read: Called in the decoding threads, unless ``threaded_read`` is off (one stream, one reader).
        progress: Told of the images done.
        threaded_read: Whether ``read`` may be called from several threads.

    Returns:
        (N, 48, 48) grey values, and how many images were changed, by what was done.

    Raises:
        DataError: Of the first image, in order, that cannot be read.
    """
    images = np.empty((len(items), *FER2013.stored_shape), dtype=np.uint8)
    changes: Counter[Change] = Counter()

    def work(start: int, chunk: Sequence[T], encoded: list[tuple[str, bytes]] | None) -> Counter[Change]:
        counts: Counter[Change] = Counter()
        for offset, item in enumerate(chunk):
            label, content = encoded[offset] if encoded is not None else read(item)
            images[start + offset], done = decode(content, label)
            counts.update(done)
        return counts

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: list[tuple[int, Future[Counter[Change]]]] = []
        try:
            for start, chunk in _chunks(items):
                encoded = None if threaded_read else [read(item) for item in chunk]
                waiting.append((start + len(chunk), pool.submit(work, start, chunk, encoded)))
                if len(waiting) > 2 * workers:  # keeps what is read but not decoded small
                    done, future = waiting.pop(0)
                    changes += future.result()
                    progress("decoding images", done, len(items))
            for done, future in waiting:
                changes += future.result()
                progress("decoding images", done, len(items))
        finally:
            pool.shutdown(cancel_futures=True)
    return images, changes


def _chunks(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    iterator = iter(items)
    start = 0
    while chunk := list(islice(iterator, _CHUNK)):
        yield start, chunk
        start += len(chunk)


def change_notes(changes: Counter[Change]) -> tuple[str, ...]:
    """A note for each kind of change that was made."""
    return tuple(f"{changes[change]:,} {change}" for change in Change if changes[change])
