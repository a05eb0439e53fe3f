"""A browser for the tests that look at the page as people do."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.reports.sources import Report

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The browser to use: FERSWEEP_CHROMIUM, or one on the path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("FERSWEEP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; a test that asks for it skips where there is none."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here: install one, or set FERSWEEP_CHROMIUM to its path, to run the browser's tests")
    api = pytest.importorskip("playwright.sync_api", reason="the browser's tests need playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Shown:
    """A report in the browser, with everything that went wrong there and everything it asked for."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self._context.new_page()
        self.page.set_default_timeout(30_000)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self._file = file

    def open(self) -> Any:
        self.page.goto(self._file.as_uri())
        return self.page

    def draw_all(self) -> None:
        """Scroll past every figure, and wait until it is drawn."""
        for plot in self.page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.locator(".main-svg").first.wait_for()

    def brush(self) -> Any:
        """Wait for the parallel coordinates and give the brush of their first axis."""
        brush = self.page.locator("#parallel .axis-brush").first
        self.page.locator("#parallel").scroll_into_view_if_needed()
        brush.wait_for()
        return brush.bounding_box()

    def column(self, label: str) -> list[str]:
        """What the table shows in a column."""
        script = """label => {
            const table = document.getElementById("table");
            const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === label);
            return [...table.tBodies[0].rows].map(row => row.cells[at].textContent);
        }"""
        found: list[str] = self.page.evaluate(script, label)
        return found

    def outside(self) -> list[str]:
        """Requests to anything but the file itself and what is inlined in it."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def close(self) -> None:
        self._context.close()


Show = Callable[..., Shown]


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Show]:
    """Opens a report, or a file, in the browser; keywords are Playwright's for a context."""
    from fer_sweep.reports.environment import environment
    from fer_sweep.reports.html import render

    opened: list[Shown] = []

    def run(shown: Report | Path, **context: Any) -> Shown:
        file = shown if isinstance(shown, Path) else tmp_path / f"report-{len(opened)}.html"
        if isinstance(shown, Report):
            file.write_text(render(shown, environment(shown, ())), newline="\n")
        opened.append(Shown(chromium, file, **context))
        opened[-1].open()
        return opened[-1]

    yield run
    for each in opened:
        each.close()
