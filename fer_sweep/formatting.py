"""Numbers and untrusted text as tables, messages and reports show them."""

import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence

_FIRST = ("model", "lr", "optimizer", "batch_size", "epochs", "weight_decay", "dropout")
"""Parameters that a reader looks for first; the others follow in the order of the sweep file."""
_COMMAND = re.compile(r"\bfersweep [a-z]+(?: [a-z0-9]{8}\b)?(?: (?:-\S+|[^\s,;:]*[0-9/.=][^\s,;:]*))*")
"""A command in a message: the words behind it that look like an option, an id, a path or a value."""


def percent(share: float | None, digits: int = 2) -> str:
    """A share in [0, 1] in percent; None is empty."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def points(gap: float | None) -> str:
    """A difference of shares in percentage points, with its sign; None is empty."""
    return "" if gap is None else f"{100 * gap:+.1f}"


def duration(seconds: float) -> str:
    """A time span, in the unit that suits it.

    >>> duration(40), duration(600), duration(7000), duration(400_000)
    ('40 s', '10 min', '1.9 h', '4.6 d')
    """
    if seconds < 5400:
        return f"{max(0.0, seconds):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def size(count: int) -> str:
    """A number of bytes in decimal units, as ``df -H`` shows it.

    >>> size(999), size(45_600_000), size(2_100_000_000)
    ('999 B', '46 MB', '2.1 GB')
    """
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.{1 if count < 10 * length else 0}f} {unit}"
    return f"{count} B"


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "trial"), counted(2, "trial")
    ('1 trial', '2 trials')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def short(value: object) -> str:
    """A parameter's value in few characters.

    >>> short(0.00123456), short(64), short("adamw")
    ('0.00123', '64', 'adamw')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def configurations(trials: Sequence[Mapping[str, object]]) -> list[str]:
    """The parameters of each trial on one line, lr first; of several trials only those that differ.

    >>> configurations([{"epochs": 3, "lr": 0.1}, {"epochs": 3, "lr": 0.2}])
    ['lr=0.1', 'lr=0.2']
    """
    names = _telling(trials)
    return [" ".join(f"{name}={short(p[name])}" for name in names if name in p) for p in trials]


def parameter_columns(trials: Sequence[Mapping[str, object]]) -> dict[str, list[str]]:
    """The same by parameter: its value in each trial, empty where it has none.

    >>> parameter_columns([{"epochs": 3, "lr": 0.1}, {"epochs": 3, "lr": 0.2}])
    {'lr': ['0.1', '0.2']}
    """
    return {name: [short(p[name]) if name in p else "" for p in trials] for name in _telling(trials)}


def in_common(trials: Sequence[Mapping[str, object]]) -> str:
    """The parameters that are the same in all of several trials, on one line: those ``configurations`` leaves out.

    >>> in_common([{"epochs": 3, "lr": 0.1}, {"epochs": 3, "lr": 0.2}])
    'epochs=3'
    """
    telling = _telling(trials)
    return " ".join(f"{name}={short(trials[0][name])}" for name in _ordered(trials) if name not in telling)


def _ordered(trials: Sequence[Mapping[str, object]]) -> list[str]:
    names = list(dict.fromkeys(name for parameters in trials for name in parameters))
    return sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def _telling(trials: Sequence[Mapping[str, object]]) -> list[str]:
    """The parameters that tell trials apart; of one trial, all."""
    names = _ordered(trials)
    return [name for name in names if len(trials) == 1 or len({repr(p.get(name)) for p in trials}) > 1]


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """Text in lines of at most ``width`` characters, broken between words only, and never within a command.

    A word that is longer has a line of its own, which a terminal breaks without harm to who copies it.

    >>> wrapped("next: fersweep test abcdefgh --trial 3 opens the split", 34)
    ['next:', 'fersweep test abcdefgh --trial 3', 'opens the split']

    Args:
        text: Its own line breaks stay.
        width: Of the terminal.
        indent: Before each line after the first.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        whole = _COMMAND.sub(lambda command: command[0].replace(" ", "\0"), line)
        parts = textwrap.wrap(
            whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, tabsize=4
        )
        lines += [part.replace("\0", " ") for part in parts] or [""]
    return lines


def plain(text: str, limit: int) -> str:
    r"""Untrusted text as one line of at most ``limit`` characters, without control or format characters.

    >>> plain("a\nb\x1b[31m \u202e" + 9 * "c", 12)
    'a b [31m cc…'
    """
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text[: 4 * limit])
    line = " ".join(shown.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
