"""Makes the README's pictures from real runs on drawn faces: ``python -m tests.pictures [REPORT PREFIX SECTION ...]``.

Nothing of FER2013 is in them, whatever is prepared on the machine: they are made in an empty home and cache.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.text import Text

from tests.reports.conftest import browser
from tests.support.processes import COMMAND

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
RUN = "fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=4 --count 6 --slots 2"
REPORTED = "fersweep run sweeps/simple_cnn.yaml --data synthetic --set epochs=9 --set channels=16 --count 23"
WIDTH = 104
"""Columns of the terminal. Wider, and the README shows it too small to read."""
WINDOW = {"width": 1280, "height": 2400}
"""Pixels; so high that what is shown of the page need not be scrolled to, and is drawn at once."""
ERASED = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
"""What rich's live display writes before it draws itself anew: it clears its rows, the last one first."""


def main(report: str = "", prefix: str = "", *sections: str) -> None:
    """Make both pictures, or PREFIX + SECTION.png of each of some sections of a report that is there."""
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        for name in sections:
            take(chromium, Path(report), HERE / f"{prefix}{name}.png", name)
        if not sections:
            (HERE / "terminal.svg").write_text(terminal(RUN))
            for command in (REPORTED, "fersweep report -o report.html"):
                run(command, Path(folder))
            take(chromium, Path(folder, "faces", "report.html"), HERE / "report.png")


def run(command: str, folder: Path) -> str:
    """Run a command in a home and with a cache of their own; gives what it writes to a terminal of WIDTH columns."""
    faces = folder / "faces"
    shutil.copytree(REPOSITORY / "sweeps", faces / "sweeps", dirs_exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "FERSWEEP_"))}
    ours = {"FERSWEEP_HOME": f"{faces}/.fersweep", "FERSWEEP_CACHE": f"{folder}/cache", "WANDB_MODE": "offline"}
    ours |= {"TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY)}
    line = f"stty cols {WIDTH} rows 48; exec {command.replace('fersweep', shlex.join(COMMAND), 1)}"
    words = ["script", "--quiet", "--return", "--command", line, "/dev/null"]
    done = subprocess.run(words, cwd=faces, env=kept | ours, check=True, input=b"", stdout=subprocess.PIPE)
    return done.stdout.decode().replace(str(faces), "~/faces")


def terminal(command: str) -> str:
    """The command at work, when half the trials have ended and most slots show an epoch, and what it ends with."""

    def work(rows: list[Text]) -> tuple[bool, int]:
        text = "\n".join(row.plain for row in rows)
        headline = re.search(r"^(\d+)/(\d+) trials", text, flags=re.MULTILINE)
        ended, planned = map(int, headline.groups()) if headline else (0, 1)
        return planned / 2 <= ended < planned, len(re.findall(r"^ +cpu\d+ +\d+ +\d+/\d+ ", text, flags=re.MULTILINE))

    with tempfile.TemporaryDirectory() as folder:
        shown = list(moments(run(command, Path(folder))))
    ended = shown[-1]
    start = next(number for number, row in enumerate(ended) if row.plain.startswith("winner: "))
    rows = [Text.from_ansi(f"\x1b[32m$\x1b[0m {command}"), *max(shown, key=work), Text(), *ended[start:]]
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        for row in rows:
            for line in row.divide(range(WIDTH, len(row), WIDTH)):  # where a terminal breaks it
                console.print(line, soft_wrap=True)
        title = "fersweep: at work, and what it ends with"
        picture = console.export_svg(title=title, unique_id="fersweep")
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # a page that shows it asks nobody for a font
    return picture.replace("Fira Code, ", "").replace("monospace", "ui-monospace, Menlo, Consolas, monospace")


def moments(output: str) -> Iterator[list[Text]]:
    """The filled rows of the screen before each redrawing of a live display, and at the end."""
    output = re.sub(r"\x1b\[\?25[hl]|\r(?=\n)", "", output)  # the cursor is hidden and shown
    erasures = [len(re.findall("2K", erasure)) for erasure in ERASED.findall(output)]
    rows: list[str] = []
    for drawn, erased in zip(ERASED.split(output), [*erasures, 0], strict=True):
        rows += drawn.split("\n")
        yield [text for text in map(Text.from_ansi, rows) if text.plain.strip()]
        del rows[len(rows) - erased :]


def take(chromium: Any, report: Path, picture: Path, section: str = "") -> None:
    """A picture of a report: from the top to accuracy against gap, or one section."""
    page = chromium.new_page(viewport=WINDOW, color_scheme="light")
    page.goto(report.resolve().as_uri())
    shown = page.locator(f"section#{section or 'pareto'}")
    shown.scroll_into_view_if_needed()  # a figure is drawn when it comes into view
    shown.locator(".main-svg").first.wait_for()
    if section:
        shown.screenshot(path=picture)
        return
    page.locator("#parallel .axis-brush").first.wait_for()
    box = shown.bounding_box()
    height = box["y"] + box["height"] + 24  # a margin
    page.screenshot(path=picture, clip={"x": 0, "y": 0, "width": WINDOW["width"], "height": height})
    with Image.open(picture) as shot:  # figures and text need few colours: a third of the bytes
        few = shot.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
