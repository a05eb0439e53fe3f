"""What commands print: tables for people, one JSON document for scripts, errors with their hints."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fer_sweep.errors import FersweepError, printable
from fer_sweep.files import drop_unwritten
from fer_sweep.formatting import configurations, percent, points

if TYPE_CHECKING:
    from rich.console import Console

    from fer_sweep.records import TrialRecord
    from fer_sweep.selection import Candidate, Selection


def say(text: str) -> None:
    """Print a note or a next step on stderr; stdout is for the command's output."""
    try:
        print(printable(text), file=sys.stderr)
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
        _discard_stdout()


def _discard_stdout() -> None:
    # Python would otherwise complain at exit about what it could not flush.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """A console that survives a reader who leaves early (``| head``, a killed tee), where rich's own would exit."""
    from rich.console import Console  # only here: rich costs 0.1 s, and most commands do without

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            _discard_stdout()

    # FORCE_COLOR, which notebooks set, would treat a pipe as a terminal.
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Patient(stderr=stderr, width=width, force_terminal=is_terminal)


def print_table(
    title: str, headings: Iterable[str], rows: Sequence[Sequence[object]], *, key: str | None = None
) -> None:
    """Print a table on stdout; columns of numbers are aligned on the right.

    Args:
        title: Printed above the table.
        headings: One a column.
        rows: Cells, printed as text.
        key: The column that names a row. With a key, the widest column moves below the table, one line a row, where
            the terminal is too narrow to show it beside the others.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen = console()
    if not screen.is_terminal:
        screen = console(width=200)  # a pipe has no width of its own; 80 would cut parameters off
    headings, cells = list(headings), [[printable(str(cell)) for cell in row] for row in rows]

    def show(places: Sequence[int], frame: box.Box, title: Text | None = None) -> None:
        table = Table(title=title, title_justify="left", box=frame, padding=0 if frame is box.SIMPLE else (0, 1))
        for place in places:
            is_numeric = all(_NUMBER.fullmatch(row[place]) for row in cells)
            table.add_column(headings[place], justify="right" if is_numeric else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(row[place]) for place in places))
        screen.print(table)

    everything = range(len(headings))
    widths = [max(len(row[place]) for row in [headings, *cells]) for place in everything]
    widest = widths.index(max(widths))
    room = screen.width - (3 * len(widths) + 1) - (sum(widths) - widths[widest])  # a line and two spaces a column
    if key is None or room >= min(_NARROWEST, widths[widest]):
        show(everything, box.HEAVY_HEAD, Text(printable(title)))
    else:
        show([place for place in everything if place != widest], box.SIMPLE, Text(printable(title)))
        show([headings.index(key), widest], box.SIMPLE)


_NUMBER = re.compile(r"([+-]?[\d.,]+( %)?)?")
_NARROWEST = 32
"""Characters in which a configuration is still readable; in fewer it takes dozens of lines a trial."""


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


TRIAL_COLUMNS = ("trial", "state", "epoch", "best_val_acc", "gap", "verdict", "parameters", "note")


def trial_rows(records: Sequence["TrialRecord"]) -> list[list[object]]:
    """Rows for TRIAL_COLUMNS; only parameters that differ between trials are shown."""
    rows: list[list[object]] = []
    for record, parameters in zip(records, configurations([r.parameters for r in records]), strict=True):
        metrics = _all_metrics(record)
        epoch = f"{metrics['epoch']:.0f}" if "epoch" in metrics else ""
        measured = [epoch, percent(metrics.get("best_val_acc")), points(metrics.get("train_val_gap"))]
        verdict = record.result.verdict if record.result else ""
        note = record.reason.splitlines()[0] if record.reason else ""
        rows.append([record.trial_id, record.state, *measured, verdict, parameters, note])
    return rows


def _all_metrics(record: "TrialRecord") -> dict[str, Any]:
    if record.result is None:
        return dict(record.metrics)
    return {"epoch": record.result.epochs, **record.metrics, **record.result.model_dump(mode="json")}
