"""The live view in a cell of a notebook: a bar and the table of the terminal, redrawn in place once a second.

It takes what every notebook has (Jupyter, Colab, Kaggle, VS Code): a display with an id. No widget is needed.
"""

import contextvars
import io
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from markupsafe import Markup
from rich.console import Console, RenderableType

REDRAWN_S = 1.0
"""Seconds between two drawings."""
WIDTH = 110
"""Characters of a drawing."""
_FORMAT = '<pre style="margin:0;line-height:1.3;white-space:pre;overflow-x:auto">{code}</pre>'


def in_cell() -> bool:
    """Whether this process is the kernel of a notebook, which ``!fersweep agent`` in a cell is not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class LiveCell:
    """Redraws a view in the cell that is running; the counterpart of rich's ``Live``."""

    def __init__(self, draw: Callable[[], RenderableType], progress: Callable[[], tuple[int, int | None]]) -> None:
        """``progress`` gives the trials that have ended, and those planned, if the sweep has an end."""
        self._draw = draw
        self._progress = progress
        self._shown: dict[str, str] = {}
        self._handle: Any = None
        self._ended = threading.Event()
        # The kernel finds the cell to draw in by a variable of the context.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._redraw,), daemon=True)

    def __enter__(self) -> Self:
        from IPython.display import display  # only here: every kernel has it, and nothing else needs it

        self._shown = self._drawn()
        self._handle = display(self._shown, raw=True, display_id=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._update()

    def _redraw(self) -> None:
        while not self._ended.wait(REDRAWN_S):
            with suppress(RuntimeError):  # a slot came or went while it was drawn
                self._update()

    def _update(self) -> None:
        drawn = self._drawn()
        if drawn != self._shown:
            self._shown = drawn
            self._handle.update(drawn, raw=True)

    def _drawn(self) -> dict[str, str]:
        ended, planned = self._progress()
        console = Console(file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False)
        console.print(self._draw())
        text = console.export_text(clear=False)
        html = console.export_html(inline_styles=True, code_format=_FORMAT)
        bar = ""
        if planned:
            bar = Markup('<progress value="{}" max="{}" style="width:60%"></progress> {:.0%}').format(
                min(ended, planned), planned, min(1.0, ended / planned)
            )
        return {"text/html": f"<div>{bar}{html}</div>", "text/plain": text}
