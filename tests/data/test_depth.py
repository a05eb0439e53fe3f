"""Images of every depth come out with their own grey values, or are refused; none is clipped."""

import struct

import numpy as np
import pytest
from PIL import Image

from fer_sweep.data.images import Change, decode
from fer_sweep.errors import DataError
from tests.support.faces import encode

GREY = (np.arange(48 * 48).reshape(48, 48) % 256).astype(np.uint8)


def tiff(values: bytes, bits: int, *, sample: int = 1, photometric: int = 1, order: str = "<", count: int = 1) -> bytes:
    """A TIFF of 48x48 pixels in one strip, listed ``count`` times."""
    strips = struct.pack(f"{order}L", 8) * count
    strips_at, counts_at = (8, len(values)) if count == 1 else (8 + len(values),) * 2
    tags = [(256, 4, 1, 48), (257, 4, 1, 48), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
    tags += [(273, 4, count, strips_at), (277, 3, 1, 1), (278, 4, 1, 48), (279, 4, count, counts_at)]
    tags += [(339, 3, 1, sample)]
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, number, value in tags:
        content = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}L", value)
        directory += struct.pack(f"{order}HHL", tag, kind, number) + content
    start = 8 + len(values) + len(strips)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}L", start) + values + strips + directory + bytes(4)


def twelve_bits() -> bytes:
    pairs = np.rint(GREY * (4095 / 255)).astype(np.uint16).reshape(-1, 2)
    packed = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
    return np.stack(packed, axis=1).astype(np.uint8).tobytes()


DEEP = {
    "PNG of 16 bits": encode(GREY.astype(np.uint16) * 257, "PNG"),
    "PGM of 16 bits": encode(GREY.astype(np.int32) * 257, "PPM"),
    "PFM": encode(GREY.astype(np.float32) / 255, "PPM"),
    "TIFF of 16 bits": encode(GREY.astype(np.uint16) * 257, "TIFF"),
    "TIFF of 16 bits, LZW": encode(GREY.astype(np.uint16) * 257, "TIFF", compression="tiff_lzw"),
    "TIFF of 16 bits, deflate": encode(GREY.astype(np.uint16) * 257, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF of 16 bits, big endian": tiff((GREY.astype(np.uint16) * 257).astype(">u2").tobytes(), 16, order=">"),
    "TIFF of 16 bits, white is 0": tiff(((255 - GREY).astype(np.uint16) * 257).tobytes(), 16, photometric=0),
    "TIFF of 16 bits, signed": tiff(np.rint(GREY * (32767 / 255)).astype(np.int16).tobytes(), 16, sample=2),
    "TIFF of 12 bits": tiff(twelve_bits(), 12),
    "TIFF of 32 bits": encode(GREY.astype(np.int32) * 257, "TIFF"),
    "TIFF of floats": encode(GREY.astype(np.float32) / 255, "TIFF"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_image_is_scaled_by_the_range_of_its_kind(name: str) -> None:
    image, changes = decode(DEEP[name], name)
    np.testing.assert_array_equal(image, GREY)
    assert changes == {Change.CONVERTED, Change.SCALED}


def test_dark_deep_image_stays_dark() -> None:
    image, _ = decode(encode((GREY // 16).astype(np.uint16) * 257, "PNG"), "x")
    np.testing.assert_array_equal(image, GREY // 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GREY.astype(np.float32), "from 0.0 to 255.0, and white would be 1"),
        (np.full((48, 48), np.nan, np.float32), "from nan to nan"),
        (GREY.astype(np.float32) - 1, "from -1.0"),
        (GREY.astype(np.int32), "32-bit integers up to 255"),
        (GREY.astype(np.int32) * 70_000, "white would be 65535"),
    ],
)
def test_image_whose_scale_is_not_known_is_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=f"^x: its scale is not known: .*{message}") as caught:
        decode(encode(values, "TIFF"), "x")
    assert "8 or 16 bits" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("TIFF", {}), ("TIFF", {"compression": "packbits"}), ("BMP", {}), ("PPM", {}), ("PNG", {})],
)
def test_grey_image_of_8_bits_is_taken_as_it_is(kind: str, options: dict[str, object]) -> None:
    image, changes = decode(encode(GREY, kind, **options), "x")
    np.testing.assert_array_equal(image, GREY)
    assert not changes


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG"])
def test_first_of_several_frames_is_taken(kind: str) -> None:
    content = encode(GREY, kind, save_all=True, append_images=[Image.fromarray(255 - GREY)])
    image, changes = decode(content, "x")
    np.testing.assert_array_equal(image, GREY)
    assert changes == {Change.FIRST}


@pytest.mark.parametrize("compression", ["jpeg", "group4", "zstd"])
def test_tiff_with_a_decoder_of_its_own_is_refused(compression: str) -> None:
    values = GREY > 128 if compression == "group4" else GREY
    try:
        content = encode(values, "TIFF", compression=compression)
    except (OSError, ValueError):
        pytest.skip(f"this Pillow cannot write {compression}")
    with pytest.raises(DataError, match=f"a TIFF compressed as {compression} is not read"):
        decode(content, "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"II+\0" + bytes(60), "a TIFF of an unusual kind"),  # BigTIFF
        (b"MM*\0" + bytes(60), "a TIFF of an unusual kind"),
        (tiff(GREY.tobytes(), 8, count=3000), "values of one kind"),  # its entries share their bytes
        # Pillow would take seconds and a gigabyte for a million pieces.
        (tiff(GREY.tobytes(), 8, count=1_000_000), "a TIFF with 1,000,000 values of one kind"),
    ],
    ids=["big", "empty", "shared", "million"],
)
def test_unusual_tiff_is_refused_before_it_is_read(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"{message} is refused"):
        decode(content, "x")
