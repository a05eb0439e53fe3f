"""What commands print: tables for people, one JSON document for scripts, errors with their hints."""

import json
import os
import re
import select
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from fer_sweep.errors import FersweepError, printable
from fer_sweep.files import drop_unwritten
from fer_sweep.formatting import configurations, parameter_columns, percent, points, wrapped

if TYPE_CHECKING:
    from rich.console import Console

    from fer_sweep.records import TrialRecord
    from fer_sweep.selection import Candidate, Selection


def say(text: str) -> None:
    """Print a note or a next step on stderr; stdout is for the command's output."""
    try:
        print(_fitted(text, sys.stderr), file=sys.stderr)
    except OSError:  # a full disk or a closed terminal stops no training
        drop_unwritten(sys.stderr)


def note(text: str) -> None:
    """Print a note on stderr."""
    say(f"note: {text}")


def print_error(error: FersweepError) -> None:
    """Print an error and its hint."""
    say(f"error: {error}")
    if error.hint:
        say(f"hint: {error.hint}")


def print_text(text: str) -> None:
    """Print output on stdout; a reader who leaves early (``| head``) is no error."""
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        drop_unwritten(sys.stdout)


def has_reader() -> bool:
    """Whether stdout is still read: not once ``| head`` has closed the pipe, even before anything else is printed."""
    if sys.platform == "win32":
        return True  # no poll tells
    else:
        try:
            pipe = select.poll()
            pipe.register(sys.stdout.fileno(), 0)
        except (AttributeError, OSError, ValueError):  # it has no file
            return True
        return not any(event & select.POLLERR for _, event in pipe.poll(0))


def print_prose(text: str) -> None:
    """Print sentences on stdout: a terminal breaks them between words, a pipe gets each as one line."""
    print_text(_fitted(text, sys.stdout))


def _fitted(text: str, stream: TextIO) -> str:
    width = _width(stream) if stream.isatty() else None
    text = printable(text)
    return text if width is None else "\n".join(wrapped(text, width, indent="  "))


def _width(stream: TextIO) -> int | None:
    """Columns of a terminal, or those that COLUMNS says of a pipe; None for a pipe otherwise."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80 if stream.isatty() else None


def print_json(document: Any) -> None:
    """Print records and plain values as one JSON document; NaN and infinity become null, since JSON has neither."""
    from pydantic_core import to_jsonable_python

    text = json.dumps(to_jsonable_python(document, inf_nan_mode="null"), indent=2, allow_nan=False)
    print_text(text.replace("\x7f", "\\u007f"))  # the one control character that json leaves as it is


def log_warnings() -> None:
    """Print warnings that are logged to stderr."""
    import logging

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler = logging.StreamHandler()
    handler.setFormatter(Printable("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("wandb").propagate = False  # it has a log of its own


def console(*, stderr: bool = False) -> "Console":
    """A console that survives a reader who leaves early (``| head``, a killed tee), where rich's own would exit."""
    from rich.console import Console  # only here: rich costs 0.1 s, and most commands do without

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            drop_unwritten(self.file)

    # FORCE_COLOR, which notebooks set, would treat a pipe as a terminal.
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Patient(stderr=stderr, force_terminal=is_terminal)


def print_table(
    title: str,
    headings: Iterable[str],
    rows: Sequence[Sequence[object]],
    *,
    key: str | None = None,
    extra: Mapping[str, Sequence[object]] | None = None,
) -> list[str]:
    """Print a table on stdout; columns of numbers are aligned on the right.

    No cell is broken within a word. What a narrow terminal cannot show in one line a row follows on further lines of
    the row.

    Args:
        title: Printed above the table.
        headings: One a column.
        rows: Cells, printed as text.
        key: The column that names a row. It and those before it stay in the row's first line; by default the first.
        extra: Further columns by heading, the most important first. Those are added that need no further line.

    Returns:
        The headings of the further columns that were not added.
    """
    from rich.text import Text

    headings = [printable(heading) for heading in headings]
    cells = [[_cell(cell) for cell in row] for row in rows]
    screen, width = console(), _width(sys.stdout) or _PIPE
    first = 1 + (headings.index(key) if key else 0)
    heading, lines = table_lines(headings, cells, width, first)
    for name, column in (extra or {}).items():
        wider = [*headings, name], [[*row, _cell(cell)] for row, cell in zip(cells, column, strict=True)]
        shown = table_lines(*wider, width, first)
        if len(shown[1]) == len(lines):
            (headings, cells), (heading, lines) = wider, shown
    for line in wrapped(printable(title), width):
        screen.print(Text(line, style="italic"), soft_wrap=True)
    screen.print(Text(heading, style="bold"), soft_wrap=True)
    for line in lines:
        screen.print(Text(line), soft_wrap=True)
    return [name for name in extra or () if name not in headings]


def _cell(value: object) -> str:
    return " ".join(printable(str(value)).split())


_PIPE = 200
"""Columns of a table where no terminal shows it; 80 would cut parameters off."""
_WORDY = 28
"""Cells longer than this are wrapped between their words; shorter ones stay on one line."""
_ROWS = 3
"""So many lines of a wrapped cell; a longer one follows below its row."""
_NUMBER = re.compile(r"([+-]?[\d.,]+(e[+-]\d+)?( %)?)?")


def table_lines(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, first: int = 1
) -> tuple[str, list[str]]:
    """Lay out a table.

    Args:
        headings: One a column.
        rows: Their cells, each without line breaks.
        width: Columns of the terminal.
        first: So many columns stay in the first line of each row.

    Returns:
        The headings, and the lines of the rows.
    """
    from rich.cells import cell_len, set_cell_size

    columns = list(zip(*rows, strict=True)) or [()] * len(headings)
    kept = [place for place, column in enumerate(columns) if place < first or not rows or any(column)]
    longest = [max(map(cell_len, [heading, *column])) for heading, column in zip(headings, columns, strict=True)]
    words = [max(cell_len(word) for cell in ["", *column] for word in cell.split() or [""]) for column in columns]
    wordy = {place for place in kept if longest[place] > _WORDY and words[place] < longest[place]}
    needed = [
        max(_WORDY, words[place], longest[place] // _ROWS) if place in wordy else longest[place]
        for place in range(len(headings))
    ]

    def room() -> int:
        return width - sum(needed[place] for place in kept) - 2 * (len(kept) - 1)

    def together(place: int, cell: str) -> str:
        return f"{headings[place]} {cell}".replace(" ", "\0")  # kept on one line by ``wrapped``

    below: list[int] = []
    while room() < 0 and (movable := [place for place in kept if place >= first]):
        below.append(max(movable, key=lambda place: (place in wordy, place)))
        kept.remove(below[-1])
    spare = room()
    for number, place in enumerate(wide := [place for place in kept if place in wordy]):
        more = min(longest[place] - needed[place], max(spare, 0) // (len(wide) - number))
        needed[place] += more
        spare -= more
    numeric = {place for place in kept if all(map(_NUMBER.fullmatch, columns[place]))}

    def line(cells: Sequence[str]) -> str:
        padded = (
            " " * (needed[place] - cell_len(cell)) + cell if place in numeric else set_cell_size(cell, needed[place])
            for place, cell in zip(kept, cells, strict=True)
        )
        return "  ".join(padded).rstrip()

    lines = ["  ".join("-" * needed[place] for place in kept)]
    margin = " " * min(sum(needed[place] + 2 for place in kept if place < max(first - 1, 1)), 8)
    for row in rows:
        parts = [wrapped(row[place], needed[place]) if place in wordy else [row[place]] for place in kept]
        for level in range(max(map(len, parts))):
            lines.append(line([part[level] if level < len(part) else "" for part in parts]))
        rest = [row[place] if place in wordy else together(place, row[place]) for place in sorted(below) if row[place]]
        if rest:
            lines += [margin + part for part in wrapped(", ".join(rest), width - len(margin))]
    return line([headings[place] for place in kept]), lines


def trial_json(record: "TrialRecord") -> dict[str, Any]:
    """A trial as ``status --json`` shows it."""
    return {
        "id": record.trial_id,
        "state": record.state,
        "config": dict(record.config),
        "metrics": _all_metrics(record),
        "reason": record.reason,
    }


def candidate_json(candidate: "Candidate") -> dict[str, Any]:
    """A trial as ``best --json`` shows it."""
    from fer_sweep.verdicts import explain

    return {
        "sweep": candidate.sweep,
        **trial_json(candidate.record),
        "verdict_reason": explain(candidate.result),
    }


def selection_json(selection: "Selection") -> dict[str, Any]:
    """A choice as ``best --json`` shows it."""
    return {
        "winner": candidate_json(selection.winner) if selection.winner else None,
        "pareto": [candidate_json(candidate) for candidate in selection.pareto],
        "ranking": [candidate_json(candidate) for candidate in selection.ranking],
        "standard_error": selection.standard_error,
        "reason": selection.reason,
    }


TRIAL_COLUMNS = ("trial", "state", "epoch", "best_val_acc", "gap", "verdict", "note")


def print_trials(title: str, records: Sequence["TrialRecord"], *, show_all: bool = False) -> None:
    """Print a table of trials, one line each with the parameters that fit; with all parameters on request."""
    rows: list[list[object]] = []
    for record in records:
        metrics = _all_metrics(record)
        epoch = f"{metrics['epoch']:.0f}" if "epoch" in metrics else ""
        measured = [epoch, percent(metrics.get("best_val_acc")), points(metrics.get("train_val_gap"))]
        verdict = record.result.verdict if record.result else ""
        rows.append([record.trial_id, record.state, *measured, verdict, _note(record)])
    parameters = [record.parameters for record in records]
    if show_all:
        rows = [[*row, line] for row, line in zip(rows, configurations(parameters), strict=True)]
        print_table(title, (*TRIAL_COLUMNS, "parameters"), rows, key="trial")
    elif left_out := print_table(title, TRIAL_COLUMNS, rows, key="trial", extra=parameter_columns(parameters)):
        print_prose(f"--all also shows {', '.join(left_out)}")


def _note(record: "TrialRecord") -> str:
    """The reason of a trial's state, unless state and epoch say as much."""
    is_plain = record.state in ("pruned", "paused") or (record.reason or "").startswith(f"{record.state} in epoch")
    return "" if is_plain or not record.reason else record.reason.splitlines()[0]


def _all_metrics(record: "TrialRecord") -> dict[str, Any]:
    if record.result is None:
        return dict(record.metrics)
    return {"epoch": record.result.epochs, **record.metrics, **record.result.model_dump(mode="json")}
