"""Pictures of one's own: upright, grey, square; and files that are none."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_sweep.data.photos import MAX_PIXELS, centre, largest_face, read_photo
from fer_sweep.data.synthetic import draw
from fer_sweep.errors import DataError, InputError
from tests.support.faces import png_of_size


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
def test_large_picture_is_made_smaller_and_a_huge_one_refused(name):
    Image.new("RGB", (5000, 3000), (9, 90, 200)).save(name)
    photo = read_photo(Path(name))
    assert max(photo.size) <= 2048 < 2 * max(photo.size)
    assert photo.width / photo.height == pytest.approx(5 / 3, rel=0.01)
    side = int(MAX_PIXELS**0.5) + 10
    for content, message in ((png_of_size(side), f"{side}x{side} pixels is refused"), (bytes(33 << 20), "32 MiB")):
        Path(name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.*{message}"):
            read_photo(Path(name))


def test_only_files_are_read():
    os.mkfifo("pipe")  # opening it would wait for a writer
    for name in ("pipe", "."):
        with pytest.raises(DataError, match="no such file"):
            read_photo(Path(name))


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
