"""The README's pictures: what is there is small and asks nobody for anything, and the script makes such again."""

import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from fer_sweep.reports.environment import environment
from fer_sweep.reports.html import render
from tests.pictures import sections
from tests.pictures.__main__ import HERE, RUN, WINDOW, main, take
from tests.pictures.screen import Screen, moments
from tests.reports.conftest import find_chromium
from tests.support import reports as made_up


def test_pictures_of_the_readme_are_small_and_load_nothing() -> None:
    picture = (HERE / "terminal.svg").read_text()
    assert len(picture) < 150_000
    assert not re.findall(r"url\((?!#)|href=|<script|<image|@import", picture)
    image = (HERE / "report.png").read_bytes()
    assert len(image) < 300_000
    assert image.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", image[16:24])
    assert width >= 1200 and height >= 700


def test_terminal_shows_the_command_of_the_script_and_no_path_of_a_machine() -> None:
    picture = (HERE / "terminal.svg").read_text().replace("&#160;", " ")
    assert RUN.partition(" --slots")[0] in picture
    assert "winner: trial" in picture
    assert not re.search(r"/(tmp|home|root|work|Users)/", picture)


def test_screen_keeps_what_is_redrawn_once_and_what_scrolls_by() -> None:
    output = "note\r\n\x1b[?25lslot 1\r\nleft 9\r\x1b[2K\x1b[1A\x1b[2K\x1b[32mtrial 0 ended\x1b[0m\r\nslot 2\r\n"
    screen = Screen()
    screen.feed(output)
    assert screen.plain() == ["note", "trial 0 ended", "slot 2", ""]
    assert [rows[1] for rows in moments(output)] == ["slot 1", "\x1b[32mtrial 0 ended\x1b[0m"]
    with pytest.raises(ValueError, match="not a thing"):
        screen.feed("\x1b[3;4H")


@pytest.mark.process
@pytest.mark.process
@pytest.mark.usefixtures("one_core")
def test_script_shows_the_terminal_of_a_real_run(tmp_path: Path) -> None:
    command = "fersweep run sweeps/simple_cnn.yaml --data synthetic --gpus none --set train_samples=70"
    command += " --set epochs=1 --set channels=4 --set hidden=64 --count 2"
    main(["--only", "terminal", "--into", str(tmp_path), "--run", command])
    picture = (tmp_path / "terminal.svg").read_text().replace("&#160;", " ")
    assert "$ fersweep run" in re.sub(r"<[^>]*>", "", picture)
    assert re.search("[012]/2 trials", picture)
    assert "winner: trial" in picture


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: install one, or set FERSWEEP_CHROMIUM")
def test_scripts_take_pictures_of_a_report_and_its_sections(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="the browser's tests need playwright")
    shown = made_up.report(made_up.sweep(trials=12, seed=1))
    (tmp_path / "report.html").write_text(render(shown, environment(shown, ())))
    take(tmp_path / "report.html", tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width == WINDOW["width"] and 1000 < picture.height <= WINDOW["height"]
    words = [str(tmp_path / "report.html"), "--into", str(tmp_path), "--prefix", "some-"]
    sections.main([*words, "--section", "pareto", "--section", "best"])
    for name in ("pareto", "best"):
        assert (tmp_path / f"some-{name}.png").stat().st_size > 10_000, name
