"""Images of every kind and depth come out with their own grey values, or are refused; none is clipped."""

import struct

import numpy as np
import pytest
from PIL import Image

from fer_sweep.data.images import Change, decode
from fer_sweep.errors import DataError
from tests.support.faces import encode, png_of_size

GREY = (np.arange(48 * 48).reshape(48, 48) % 256).astype(np.uint8)
DARK = GREY // 2
"""Without white: an image is not scaled by its own extremes."""
WORDS = DARK.astype(np.uint16) * 257
SIGNED = np.rint(DARK * (32767 / 255)).astype(np.uint16)
FLOATS = GREY.astype(np.float32)
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}


def retagged(content, old, new):
    """A TIFF with another entry in its directory, of tag, type, count and value, as Pillow does not write it."""
    pack = struct.Struct("<HHL" + "L" * (len(old) - 3)).pack
    return content.replace(pack(*old), pack(*new))


def twelve_bits():
    pairs = np.rint(DARK * (4095 / 255)).astype(np.uint16).reshape(-1, 2)
    packed = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
    content = encode(WORDS, "TIFF").replace(WORDS.tobytes(), np.stack(packed, axis=1).astype(np.uint8).tobytes())
    return retagged(content, (258, 3, 1, 16), (258, 3, 1, 12))


DEEP = {
    "PNG of 16 bits": encode(WORDS, "PNG"),
    "PGM of 16 bits": encode(WORDS.astype(np.int32), "PPM"),
    "PFM": encode(DARK.astype(np.float32) / 255, "PPM"),
    "TIFF of 16 bits": encode(WORDS, "TIFF"),
    "TIFF of 16 bits, LZW": encode(WORDS, "TIFF", compression="tiff_lzw"),
    "TIFF of 16 bits, deflate": encode(WORDS, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF of 16 bits, big endian": encode(WORDS.astype(">u2"), "TIFF"),
    "TIFF of 16 bits, white is 0": retagged(encode(65535 - WORDS, "TIFF"), (262, 3, 1, 1), (262, 3, 1, 0)),
    "TIFF of 16 bits, signed": retagged(encode(SIGNED, "TIFF"), (284, 3, 1, 1), (339, 3, 1, 2)),
    "TIFF of 12 bits": twelve_bits(),
    "TIFF of 32 bits": encode(WORDS.astype(np.int32), "TIFF"),
    "TIFF of floats": encode(DARK.astype(np.float32) / 255, "TIFF"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_image_is_scaled_by_the_range_of_its_kind(name):
    image, changes = decode(DEEP[name], name)
    np.testing.assert_array_equal(image, DARK)
    assert changes == {Change.CONVERTED, Change.SCALED}


@pytest.mark.parametrize(
    ("kind", "options", "changes"),
    [
        *((kind, {}, set()) for kind in ("PNG", "GIF", "BMP", "PPM", "TIFF")),
        ("TIFF", {"compression": "packbits"}, set()),
        *((kind, FRAMES, {Change.FIRST}) for kind in ("PNG", "GIF", "TIFF")),
    ],
)
def test_8_bits_are_taken_as_they_are_and_of_several_frames_the_first(kind, options, changes):
    image, found = decode(encode(GREY, kind, **options), "x")
    np.testing.assert_array_equal(image, GREY)
    assert found == changes


def gif(side):
    """A huge frame on a small screen."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 48, 48, 0, 0, 0) + frame


SCALE = "its scale is not known: .*"
REFUSED = {
    "floats over 1": (encode(FLOATS, "TIFF"), SCALE + "from 0.0 to 255.0, and white would be 1"),
    "no number": (encode(FLOATS * np.nan, "TIFF"), SCALE + "from nan to nan"),
    "below black": (encode(FLOATS - 1, "TIFF"), SCALE + "from -1.0"),
    "8 bits in 32": (encode(GREY.astype(np.int32), "TIFF"), SCALE + "32-bit integers up to 255"),
    "over 16 bits": (encode(GREY.astype(np.int32) * 70_000, "TIFF"), SCALE + "white would be 65535"),
    "BigTIFF": (b"II+\0" + bytes(60), "a TIFF of an unusual kind is refused"),
    "empty TIFF": (b"MM*\0" + bytes(60), "a TIFF of an unusual kind is refused"),
    "entries that share bytes": (
        retagged(encode(GREY, "TIFF"), (273, 4, 1), (273, 4, 3000)),
        "values of one kind is refused",
    ),
    # Pillow would take seconds and a gigabyte for a million pieces.
    "a million strips": (
        retagged(encode(GREY, "TIFF") + bytes(5 << 20), (273, 4, 1), (273, 4, 1_000_000)),
        "with 1,000,000 values of one kind is refused",
    ),
    "empty file": (b"", "an empty file in place of an image"),
    "cut JPEG": (encode(GREY, "JPEG")[:-200], "not a readable image: .*truncated"),
    "large PNG": (png_of_size(5000), "5000x5000 pixels is refused"),
    "huge PNG": (png_of_size(60_000), ""),  # Pillow refuses it, too
    "large GIF": (gif(5000), "5000x5000 pixels is refused"),
    "huge GIF": (gif(60_000), "not a readable image"),
    **{  # each has a decoder of its own
        compression: (encode(values, "TIFF", compression=compression), f"compressed as {compression} is not read")
        for compression, values in (("jpeg", GREY), ("group4", GREY > 128), ("zstd", GREY))
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_image_of_unknown_scale_or_unusual_kind_or_size_is_refused(name):
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=f"^x: .*{message}") as caught:
        decode(content, "x")
    assert caught.value.hint
