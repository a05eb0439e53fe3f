"""The README's pictures: what is there is small and asks nobody for anything, and the script makes such again."""

import re

import pytest
from PIL import Image

from tests.pictures.__main__ import HERE, RUN, terminal


def words_of(picture: str) -> str:
    return re.sub(r"<[^>]*>", "", picture.replace("&#160;", " "))


def test_pictures_of_the_readme_are_small_load_nothing_and_show_no_path_of_a_machine() -> None:
    picture, report = (HERE / "terminal.svg").read_text(), HERE / "report.png"
    assert len(picture) < 150_000 and report.stat().st_size < 300_000
    assert not re.findall(r"url\((?!#)|href=|<script|<image|@import", picture)
    shown = words_of(picture)
    assert RUN.partition(" --slots")[0] in shown and "winner: trial" in shown
    assert not re.search(r"/(tmp|home|root|work|Users)/", shown)
    with Image.open(report) as image:
        assert image.format == "PNG" and image.width >= 1200 and image.height >= 700


@pytest.mark.process
@pytest.mark.usefixtures("one_core")
def test_script_shows_the_terminal_of_a_real_run() -> None:
    command = "fersweep run sweeps/simple_cnn.yaml --data synthetic --gpus none --set train_samples=70"
    command += " --set epochs=1 --set channels=4 --set hidden=64 --count 2"
    shown = words_of(terminal(command))
    assert "$ fersweep run" in shown and "winner: trial" in shown
    assert re.search("[012]/2 trials", shown)
