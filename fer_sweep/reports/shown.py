"""Names, axes and titles of sweeps, for reports and for W&B views."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TITLE_LENGTH = 128
"""W&B's limit for a report's title, in characters."""


@dataclass(frozen=True)
class Axis:
    """A swept parameter."""

    name: str
    """Dotted where it is nested."""
    log: bool
    """Whether it is drawn on a logarithmic scale."""
    choices: tuple[Any, ...] | None = None
    """The values of a categorical parameter."""
    bounds: tuple[float, float] | None = None
    """The range that is searched, if known; 1e-9 of an unbounded distribution lies outside on each side."""


@dataclass(frozen=True)
class ShownSweep:
    """What W&B views show of one sweep."""

    id: str
    """Its id on the server."""
    entity: str
    project: str
    url: str
    """Its page."""
    name: str
    """From its file; untrusted, may be empty."""
    description: str
    """Likewise."""
    models: tuple[str, ...]
    """The architectures it trains."""
    method: str
    axes: tuple[Axis, ...]
    """Every parameter with more than one value."""
    runs: int
    """On the server, when the views were saved."""
    winner: str | None
    """The run that ``fersweep best`` picks, if any."""
    file: str
    """The sweep file, as YAML."""
    create: str
    """The command that creates it again from that file."""
    argument: str
    """Its name for other commands."""

    @property
    def label(self) -> str:
        """Model, name and id on one line."""
        models, name = ", ".join(self.models), plain(self.name, 60)
        return f"{models}: {name} ({self.id})" if name not in ("", models) else f"{models} ({self.id})"


def plain(text: str, limit: int) -> str:
    r"""Untrusted text as one line of at most ``limit`` characters, without control or format characters.

    >>> plain("a\nb\x1b[31m \u202e" + 9 * "c", 12)
    'a b [31m cc…'
    """
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text[: 4 * limit])
    line = " ".join(shown.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def file_name(sweep_id: str) -> str:
    """The file name of a sweep in the commands that create it again."""
    return f"sweep-{sweep_id}.yaml"


def title(sweeps: Sequence[ShownSweep]) -> str:
    """The report's title, within W&B's limit."""
    if len(sweeps) == 1:
        (only,) = sweeps
        models = plain(", ".join(only.models), 40)
        text = f"{models} sweep {only.id}"
        name = plain(only.name, max(1, TITLE_LENGTH - len(text) - len(" ()")))
        return plain(f"{models} sweep {name} ({only.id})" if name not in ("", models) else text, TITLE_LENGTH)
    models = ", ".join(dict.fromkeys(model for sweep in sweeps for model in sweep.models))
    return plain(f"{len(sweeps)} sweeps side by side: {models}", TITLE_LENGTH)


def workspace_name(sweeps: Sequence[ShownSweep]) -> str:
    """The title without the symbols and emoji that a workspace's name must not contain."""
    text = "".join(" " if unicodedata.category(c)[0] == "S" else c for c in title(sweeps))
    return plain(text, TITLE_LENGTH)
