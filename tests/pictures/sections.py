"""Pictures of sections of a report that is there: ``python -m tests.pictures.sections report.html --section front``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.pictures.__main__ import HERE, opened


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a PNG of each section asked for, light, as wide as the README's."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures.sections", description=__doc__)
    parser.add_argument("report", type=Path, help="an HTML file of fersweep report")
    parser.add_argument("--section", action="append", required=True, help="its id in the page; repeatable")
    parser.add_argument("--into", type=Path, default=HERE, help="folder [default: this one]")
    parser.add_argument("--prefix", default="", help="begins the pictures' names, before the section's")
    given = parser.parse_args(arguments)
    with opened(given.report) as page:
        for name in given.section:
            section = page.locator(f"section#{name}")
            section.scroll_into_view_if_needed()  # a figure is drawn when it comes into view
            section.locator(".main-svg").first.wait_for()
            section.screenshot(path=given.into / f"{given.prefix}{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
