"""A console whose reader may leave; imported only by commands that draw, since rich costs 0.1 s."""

import os
import sys

from rich.console import Console


class PatientConsole(Console):
    """Goes on when its reader has had enough (``| head``, a killed tee); rich would end the process."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        # FORCE_COLOR, which notebooks set, would make a terminal of a pipe.
        super().__init__(stderr=stderr, width=width, force_terminal=(sys.stderr if stderr else sys.stdout).isatty())

    def on_broken_pipe(self) -> None:
        """Let everything that follows go nowhere; Python would else complain at exit about what it cannot flush."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
