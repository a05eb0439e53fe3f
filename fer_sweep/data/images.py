"""From encoded images to one (N, 48, 48) uint8 array, in threads."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from fer_sweep.config.trial import IMAGE_SIZE
from fer_sweep.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and how many there are."""

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP")
MAX_PIXELS = 16_000_000
"""Of one image. A face is 2,304."""
MAX_BYTES = 32 << 20
"""Of one encoded image."""

_CHUNK = 256
T = TypeVar("T")


def decode(content: bytes, label: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """One encoded image as (48, 48) grey values, and whether it had to be converted or resized for that.

    Raises:
        DataError: It is no image, truncated, or too large.
    """
    with bounded(content, label, max_pixels=MAX_PIXELS, remedy="download the data again") as image:
        if image.mode == "L" and image.size == (IMAGE_SIZE, IMAGE_SIZE):
            return np.asarray(image), False
        return to_face(image.convert("L")), True


def to_face(grey: Image.Image) -> npt.NDArray[np.uint8]:
    """A grey image of any size as (48, 48) values, stretched to a square where it is none."""
    return np.asarray(grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))


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
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise DataError(
                    f"{label}: an image of {image.width}x{image.height} pixels is refused",
                    hint="no image of a face is so large; resize it if it is meant",
                )
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds over damaged content, SyntaxError among them
        raise DataError(
            f"{label}: not a readable image: {error or type(error).__name__}",
            hint=f"the file is damaged or of another kind than {', '.join(FORMATS)}: {remedy}",
        ) from error


def decode_all(
    items: Sequence[T],
    read: Callable[[T], tuple[str, bytes]],
    progress: Progress,
    *,
    threaded_read: bool = True,
) -> tuple[npt.NDArray[np.uint8], int]:
    """Decode many images, keeping their order.

    Args:
        items: What ``read`` turns into a label for messages and the encoded image.
        read: Called in the decoding threads, unless ``threaded_read`` is off (one stream, one reader).
        progress: Told of the images done.
        threaded_read: Whether ``read`` may be called from several threads.

    Returns:
        (N, 48, 48) grey values, and how many images were converted or resized.

    Raises:
        DataError: Of the first image, in order, that cannot be read.
    """
    images = np.empty((len(items), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    converted = 0

    def work(start: int, chunk: Sequence[T], encoded: list[tuple[str, bytes]] | None) -> int:
        count = 0
        for offset, item in enumerate(chunk):
            label, content = encoded[offset] if encoded is not None else read(item)
            images[start + offset], was_converted = decode(content, label)
            count += was_converted
        return count

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: list[tuple[int, Future[int]]] = []
        try:
            for start, chunk in _chunks(items):
                encoded = None if threaded_read else [read(item) for item in chunk]
                waiting.append((start + len(chunk), pool.submit(work, start, chunk, encoded)))
                if len(waiting) > 2 * workers:  # keeps what is read but not decoded small
                    done, future = waiting.pop(0)
                    converted += future.result()
                    progress("decoding images", done, len(items))
            for done, future in waiting:
                converted += future.result()
                progress("decoding images", done, len(items))
        finally:
            pool.shutdown(cancel_futures=True)
    return images, converted


def _chunks(items: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    iterator = iter(items)
    start = 0
    while chunk := list(islice(iterator, _CHUNK)):
        yield start, chunk
        start += len(chunk)


def converted_note(count: int) -> tuple[str, ...]:
    """A note that images were converted, if any were."""
    size = f"{IMAGE_SIZE}x{IMAGE_SIZE}"
    return (f"{count:,} images were not {size} grey and were converted to it",) if count else ()
