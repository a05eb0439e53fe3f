"""What a command shows in a terminal, and a picture of it: a pseudo-terminal, its screen, rich's SVG."""

import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

WIDTH = 104
"""Characters. Wider, and the README shows it too small to read."""

_BLACK, _RED, _GREEN, _YELLOW = (72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65)
_BLUE, _MAGENTA, _CYAN, _WHITE = (121, 192, 255), (210, 168, 255), (86, 212, 221), (177, 186, 196)
_COLOURS = [_BLACK, _RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN, _WHITE]
THEME = TerminalTheme((13, 17, 23), (230, 237, 243), _COLOURS)

_TOKENS = re.compile(r"\x1b\[(?P<arguments>[0-9;?]*)(?P<letter>[A-Za-z])|[\r\n]|[^\x1b\r\n]+|\x1b")


class Screen:
    """As much of a terminal as rich's live display asks of one: rows, each cleared before it is written anew."""

    def __init__(self) -> None:
        self.rows = [""]
        """With the escapes that colour them."""
        self._row = 0

    def feed(self, output: str) -> None:
        """Show what a program has written.

        Raises:
            ValueError: It asks for what this screen cannot do; a picture that leaves it out would be a lie.
        """
        for token in _TOKENS.finditer(output):
            text, letter, arguments = token[0], token["letter"], token["arguments"]
            if letter == "A":
                self._row = max(0, self._row - int(arguments or 1))
            elif letter == "K" and arguments == "2":
                self.rows[self._row] = ""
            elif text == "\n":
                self._row += 1
                self.rows += [""] * (self._row + 1 - len(self.rows))
            elif letter == "m" or text.isprintable():
                self.rows[self._row] += text
            elif text != "\r" and letter not in ("h", "l"):  # the cursor is hidden and shown
                raise ValueError(f"not a thing of this screen: {text!r}")

    def plain(self) -> list[str]:
        """The rows without their colours."""
        return [Text.from_ansi(row).plain for row in self.rows]


def record(words: Sequence[str], folder: Path | str, environment: Mapping[str, str], *, height: int = 48) -> str:
    """Everything a command writes to a terminal of WIDTH columns.

    Raises:
        subprocess.CalledProcessError: It does not end with exit code 0.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, WIDTH, 0, 0))
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment) as command:
        os.close(theirs)
        output = b"".join(_chunks(ours))
    os.close(ours)
    if command.returncode:
        raise subprocess.CalledProcessError(command.returncode, list(words), output)
    return output.decode()


def _chunks(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(terminal, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # Linux's word for a terminal that nobody holds any more
                return
            raise


def moments(output: str) -> Iterator[list[str]]:
    """The rows of the screen before each redrawing of a live display, and at the end."""
    screen = Screen()
    for number, piece in enumerate(output.split("\r\x1b[2K")):
        screen.feed(piece if number == 0 else f"\x1b[2K{piece}")
        yield list(screen.rows)


def svg(rows: Sequence[str], title: str) -> str:
    """A picture of some rows, in the reader's own fonts: a page that shows it asks nobody for one."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        for row in rows:
            text = Text.from_ansi(row)
            for line in text.divide(range(WIDTH, len(text), WIDTH)):  # where a terminal breaks it
                console.print(line, soft_wrap=True)
        picture = console.export_svg(title=title, theme=THEME, unique_id="fersweep")
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return picture.replace("Fira Code, ", "").replace("monospace", "ui-monospace, Menlo, Consolas, monospace")
