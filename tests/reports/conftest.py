"""A browser for the tests that look at the page as people do."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.reports.html import render
from fer_sweep.reports.sources import Report

INLINED = ("file:", "data:", "blob:")
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")
ARGUMENTS = ["--no-sandbox", "--no-first-run", "--enable-unsafe-swiftshader", *(f"--disable-{name}" for name in QUIET)]
"""WebGL without a GPU, and no request of the browser's own."""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; a test that asks for it skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("FERSWEEP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium here: install one, or set FERSWEEP_CHROMIUM to its path")
    from playwright.sync_api import sync_playwright  # only here: the default tests need no browser

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


class Shown:
    """A report in the browser; whatever goes wrong there, or is requested from elsewhere, is an error."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: asked.url.startswith(INLINED) or self.errors.append(asked.url))
        self.page.goto(file.as_uri())

    def draw_all(self) -> None:
        """Scroll past every figure, and wait until it is drawn."""
        for plot in self.page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.locator(".main-svg").first.wait_for()

    def brush(self) -> Any:
        """Wait for the parallel coordinates and give the brush of their first axis."""
        self.page.locator("#parallel").scroll_into_view_if_needed()
        brush = self.page.locator("#parallel .axis-brush").first
        brush.wait_for()
        return brush.bounding_box()

    def parallel(self, path: str) -> Any:
        """A part of the parallel coordinates as Plotly has them."""
        return self.page.evaluate(f"document.getElementById('parallel').{path}")

    def wait_for(self, condition: str) -> None:
        """Wait for a part of the parallel coordinates."""
        self.page.wait_for_function(f"document.getElementById('parallel').{condition}")


Show = Callable[..., Shown]


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Show]:
    """Opens a report in the browser; keywords are Playwright's for a context."""
    opened: list[Shown] = []

    def run(report: Report, **context: Any) -> Shown:
        file = tmp_path / f"report-{len(opened)}.html"
        file.write_text(render(report), newline="\n")
        opened.append(Shown(chromium, file, **context))
        return opened[-1]

    yield run
    for each in opened:
        each.context.close()
