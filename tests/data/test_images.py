"""Images of every kind and depth keep their own grey values, or are refused; pictures of one's own are upright too."""

import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from fer_sweep.data.images import MAX_PIXELS, Change, centre, decode, largest_face, read_photo
from fer_sweep.data.synthetic import draw
from fer_sweep.errors import DataError, InputError
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
    "JPEG 2000 of 16 bits": encode(WORDS, "JPEG2000"),
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
        *((kind, {}, set()) for kind in ("PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "JPEG2000", "PCX", "SGI")),
        *(("TIFF", {"compression": name}, set()) for name in ("packbits", "zstd")),
        *((kind, FRAMES, {Change.FIRST}) for kind in ("PNG", "GIF", "TIFF")),
    ],
)
def test_8_bits_are_taken_as_they_are_and_of_several_frames_the_first(kind, options, changes):
    image, found = decode(encode(GREY, kind, **options), "x")
    np.testing.assert_array_equal(image, GREY)
    assert found == changes


MODES = {
    **{f"{mode} in {kind}": (Image.fromarray(GREY).convert(mode), kind) for mode, kind in (
        ("P", "PNG"), ("LA", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "BMP"), ("P", "TIFF"), ("PA", "TIFF"),
        ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LA", "GIF"), ("RGB", "QOI"), ("RGB", "PCX"), ("RGBA", "SGI"),
        ("LA", "JPEG2000"), ("CMYK", "JPEG2000"))},
    "L*a*b* in TIFF": (Image.merge("LAB", [Image.fromarray(GREY)] * 3), "TIFF"),
    "transparent PNG": (Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (48, 48))]), "PNG"),
    "palette in another order": (Image.fromarray(GREY).quantize(256), "PNG"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_colours_and_palettes_keep_their_grey_values(name):
    image, kind = MODES[name]
    buffer = io.BytesIO()
    image.save(buffer, kind)
    np.testing.assert_array_equal(decode(buffer.getvalue(), name)[0], GREY)


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, {}) for kind in ("PNG", "TIFF", "BMP", "PPM", "GIF", "PCX")), ("TIFF", {"compression": "group4"})],
)
def test_images_of_1_bit_are_black_and_white(kind, options):
    np.testing.assert_array_equal(decode(encode(GREY > 128, kind, **options), "x")[0], np.where(GREY > 128, 255, 0))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("WEBP", {}), ("AVIF", {}), ("TIFF", {"compression": "jpeg"}), ("JPEG2000", {"irreversible": True})],
)
def test_lossy_images_are_read_about_as_they_were(kind, options):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    ramp = np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8) * 2
    assert np.abs(decode(encode(ramp, kind, **options), "x")[0].astype(int) - ramp).max() <= 8


def test_sun_raster_is_read():
    head = struct.pack(">8I", 0x59A66A95, 48, 48, 8, 48 * 48, 1, 0, 0)
    np.testing.assert_array_equal(decode(head + GREY.tobytes(), "x")[0], GREY)


@pytest.mark.parametrize("white", [3, 15, 255, 1023, 65535])
def test_pgm_is_scaled_by_the_white_that_it_states(white):
    values = GREY.astype(np.int64) * white // 255
    content = b"P5 48 48 %d\n" % white + values.astype("u1" if white < 256 else ">u2").tobytes()
    wanted = values * 255 / white
    assert np.abs(decode(content, "x")[0] - wanted).max() <= 0.51  # of one grey value


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
    "a phone's HEIC": (b"\0\0\0\x18ftypheic" + bytes(60), "not an image but an HEIC image"),
    "no signature": (encode(GREY, "TGA"), "not a readable image"),
    "empty file": (b"", "an empty file in place of an image"),
    "cut JPEG": (encode(GREY, "JPEG")[:-200], "not a readable image: .*truncated"),
    "large PNG": (png_of_size(9000), "9000x9000 pixels is refused"),
    "huge PNG": (png_of_size(60_000), ""),  # Pillow refuses it, too
    **{  # each has a decoder of its own
        compression: (encode(values, "TIFF", compression=compression), f"compressed as {compression} is not read")
        for compression, values in (("lzma", GREY), ("tiff_raw_16", GREY > 128))
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_image_of_unknown_scale_or_unusual_kind_or_size_is_refused(name):
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=f"^x: .*{message}") as caught:
        decode(content, "x")
    assert caught.value.hint


def read(image, name="face.png", **options):
    """The middle of a picture that was saved."""
    image.save(name, **options)
    return centre(read_photo(Path(name)))


def test_small_grey_face_is_kept_and_of_a_wide_picture_the_middle():
    picture = np.zeros((90, 200), dtype=np.uint8)
    picture[:, 55:145] = 200
    square = read(Image.fromarray(picture))
    assert (square.left, square.top, square.side) == (55, 0, 90)
    assert set(square.pixels.ravel()) == {200}
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    np.testing.assert_array_equal(read(Image.fromarray(face)).pixels, face)


def test_picture_is_turned_upright():
    upright = np.zeros((60, 60, 3), dtype=np.uint8)
    upright[:30, :30] = 250  # bright at the upper left
    upright[:30, 30:] = 120
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned left by a quarter
    found = read(Image.fromarray(np.rot90(upright)), exif=exif).pixels
    assert found[10, 10] > 200 and 100 < found[10, 40] < 150 and found[40, 10] < 10


def test_colours_depths_and_alpha_become_grey():
    assert set(read(Image.fromarray(np.full((50, 50), 128 << 8, dtype=np.uint16))).pixels.ravel()) == {128}
    for mode in ("RGB", "RGBA", "P", "1", "LA", "CMYK"):
        light = Image.new("RGB", (60, 50), (250, 250, 250)).convert(mode)
        assert read(light, "face.jpg" if mode == "CMYK" else "face.png").pixels.mean() > 240, mode


@pytest.mark.parametrize("name", ["large.jpg", "large.png"])
def test_large_picture_is_made_smaller_and_a_huge_one_or_a_pipe_is_refused(name):
    Image.new("RGB", (5000, 3000), (9, 90, 200)).save(name)
    photo = read_photo(Path(name))
    assert max(photo.size) <= 2048 < 2 * max(photo.size)
    assert photo.width / photo.height == pytest.approx(5 / 3, rel=0.01)
    side = int(MAX_PIXELS**0.5) + 10
    for content, message in ((png_of_size(side), f"{side}x{side} pixels is refused"), (bytes(33 << 20), "32 MiB")):
        Path(name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.*{message}"):
            read_photo(Path(name))
    os.mkfifo("pipe")  # opening it would wait for a writer
    with pytest.raises(DataError, match="pipe: no such file"):
        read_photo(Path("pipe"))


def test_largest_face_is_found():
    pytest.importorskip("cv2")
    drawn = Image.fromarray(draw(np.array([3]), np.random.default_rng(3))[0])
    picture = Image.new("L", (700, 400), 128)
    picture.paste(drawn.resize((240, 240), Image.Resampling.BILINEAR), (60, 80))
    picture.paste(drawn.resize((120, 120), Image.Resampling.BILINEAR), (450, 150))
    square, count = largest_face(picture, "two.png")
    assert count == 2
    assert 150 < square.side <= 240  # a drawn face has a margin
    assert square.left + square.side / 2 == pytest.approx(180, abs=30)
    assert square.top + square.side / 2 == pytest.approx(200, abs=30)


def test_without_opencv_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="OpenCV 4") as caught:
        largest_face(Image.new("L", (48, 48)), "a.png")
    assert "fersweep[faces]" in caught.value.hint
