"""Grey values of images with more than 8 bits a pixel, by the scale of their kind and never by their own extremes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fer_sweep.errors import DataError

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
"""Tags of TIFF."""
_WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class Levels:
    """What the pixel values of an image mean."""

    top: int
    """The value of white; black is 0."""
    inverted: bool
    """Whether it is the other way round."""
    is_assumed: bool = False
    """Whether the kind itself does not say where white is."""


def levels(image: Image.Image) -> Levels | None:
    """The levels of an image as it was opened; None if it has 8 bits a pixel, which Pillow converts well.

    16 bits: 0 to 65,535 (12 bits of a TIFF: 4,095; signed: 32,767). Floats: 0 to 1, as Photoshop and scikit-image write
    them. TIFF's integers of 32 bits are taken for 16 bits in a larger cell: Pillow writes those.
    """
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if image.mode == "F":
        return Levels(1, inverted)
    if not image.mode.startswith("I"):
        return None
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    is_signed = image.mode == "I" and bits == 16 and bool(tags)
    return Levels(32_767 if is_signed else (1 << min(bits, 16)) - 1, inverted, is_assumed=bits > 16)


def to_grey(image: Image.Image, scale: Levels | None, label: str) -> Image.Image:
    """An image in 8 bits of grey.

    Args:
        image: As it was opened, or turned since.
        scale: Its levels, as it was opened.
        label: What messages call it.

    Raises:
        DataError: Its values do not fit its scale.
    """
    if scale is None:
        return image.convert("L")
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= scale.top):  # of a NaN, too
        raise _unknown_scale(label, f"its pixels run from {low} to {high}, and white would be {scale.top}")
    if scale.is_assumed and 0 < high <= 255:
        raise _unknown_scale(label, f"its pixels are 32-bit integers up to {high}: of 8 bits or of 16")
    if image.mode == "F":
        grey = np.rint(values * 255).astype(np.uint8)
    else:
        grey = np.rint(np.arange(scale.top + 1) * (255 / scale.top)).astype(np.uint8)[values]
    return Image.fromarray(255 - grey if scale.inverted else grey)


def _unknown_scale(label: str, what: str) -> DataError:
    return DataError(
        f"{label}: its scale is not known: {what}", hint="save it with 8 or 16 bits a pixel, as PNG, and black as 0"
    )
