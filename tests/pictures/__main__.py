"""Makes the README's pictures from real runs on drawn faces: ``python -m tests.pictures``.

Nothing of FER2013 is in them, whatever is prepared on the machine: they are made in an empty home and cache.
"""

import argparse
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.text import Text

from tests.pictures.screen import moments, record, svg
from tests.reports.conftest import ARGUMENTS, find_chromium
from tests.support.processes import COMMAND

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
RUN = "fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=4 --count 6 --slots 2"
REPORTED = "fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=9 --set channels=16 --count 23"
WINDOW = {"width": 1280, "height": 2400}
"""Pixels; so high that what is shown of the page need not be scrolled to, and is drawn at once."""
MARGIN = 24
"""Pixels below the last figure shown."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make one picture or both."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("--only", choices=["terminal", "report"])
    parser.add_argument("--into", type=Path, default=HERE, help="folder [default: this one]")
    parser.add_argument("--run", default=RUN, help="the command whose terminal is shown")
    parser.add_argument("--reported", default=REPORTED, help="the command whose sweep the report shows")
    given = parser.parse_args(arguments)
    if given.only != "report":
        (given.into / "terminal.svg").write_text(terminal(given.run))
    if given.only != "terminal":
        report(given.reported, given.into / "report.png")


def terminal(command: str) -> str:
    """The command at work, and what it ends with, one above the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "faces"
        output = record(_words(command), folder, _environment(folder))
    shown = list(moments(output.replace(str(folder), "~/faces")))
    working, ended = _busiest(shown), shown[-1]
    start = next(number for number, row in enumerate(ended) if _plain(row).startswith("trials by best"))
    rows = [f"\x1b[32m$\x1b[0m {command}", *_trimmed(working), "", *_trimmed(ended[start:])]
    return svg(rows, "fersweep: at work, and what it ends with")


def _busiest(shown: Sequence[list[str]]) -> list[str]:
    """The rows of the moment at which half the trials have ended and most slots show an epoch."""

    def work(rows: list[str]) -> tuple[bool, int]:
        text = "\n".join(map(_plain, rows))
        headline = re.search(r"^(\d+)/(\d+) trials", text, flags=re.MULTILINE)
        ended, planned = map(int, headline.groups()) if headline else (0, 1)
        epochs = re.findall(r"^ +cpu\d+ +\d+ +\d+/\d+ ", text, flags=re.MULTILINE)
        return 2 * ended >= planned and ended < planned, len(epochs)

    return max(shown, key=work)


def report(command: str, picture: Path) -> None:
    """The top of the report of the sweep that a command makes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "faces"
        environment = _environment(folder)
        for line in (command, "fersweep report -o report.html"):
            subprocess.run(_words(line), cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        take(folder / "report.html", picture)


@contextlib.contextmanager
def opened(page_file: Path) -> Iterator[Any]:
    """A report in a browser's page, light, as wide as the README's pictures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        page = browser.new_page(viewport=WINDOW, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        yield page
        browser.close()


def take(page_file: Path, picture: Path) -> None:
    """A picture of a report: the winner, its parameters among all others', accuracy against gap."""
    with opened(page_file) as page:
        for drawn in ("#parallel .axis-brush", "[data-figure=pareto] .main-svg"):
            page.locator(drawn).first.wait_for()
        shown = page.locator("section", has=page.locator("[data-figure=pareto]")).bounding_box()
        height = shown["y"] + shown["height"] + MARGIN
        page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": WINDOW["width"], "height": height})
    with Image.open(picture) as shot:  # figures and text need few colours: a third of the bytes
        few = shot.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


def _words(command: str) -> list[str]:
    program, *words = shlex.split(command)
    assert program == "fersweep"
    return [*COMMAND, *words]


def _environment(folder: Path) -> dict[str, str]:
    """A home and a cache with nothing in them, and the shipped sweeps beside them."""
    if not folder.exists():
        folder.mkdir()
        (folder / "sweeps").symlink_to(REPOSITORY / "sweeps")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "FERSWEEP_"))}
    ours = {
        "FERSWEEP_HOME": f"{folder}/.fersweep",
        "FERSWEEP_CACHE": f"{folder.parent}/cache",
        "TERM": "xterm-256color",
    }
    return {**kept, **ours, "WANDB_MODE": "offline", "PYTHONPATH": str(REPOSITORY)}


def _trimmed(rows: list[str]) -> list[str]:
    """Without the empty rows around them."""
    filled = [number for number, row in enumerate(rows) if _plain(row).strip()]
    return rows[filled[0] : filled[-1] + 1]


def _plain(row: str) -> str:
    return Text.from_ansi(row).plain


if __name__ == "__main__":
    main(sys.argv[1:])
