"""What commands print: tables for people, one JSON document for scripts, errors with their hints."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fer_sweep.errors import FersweepError, printable

if TYPE_CHECKING:
    from fer_sweep.records import TrialRecord
    from fer_sweep.selection import Candidate, Mean, Selection


def say(text: str) -> None:
    """A remark or a next step, on stderr: stdout is for what was asked for."""
    print(printable(text), file=sys.stderr)


def print_text(text: str) -> None:
    """A line or more of what was asked for, on stdout; a reader who has had enough (``| head``) is no error."""
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        # The rest goes nowhere; Python would complain at exit about what it could not flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(document: Any) -> None:
    """The one JSON document of a ``--json`` command. NaN and infinity become null: JSON has neither."""
    text = json.dumps(_finite(document), indent=2, allow_nan=False)
    print_text(text.replace("\x7f", "\\u007f"))  # the one control character that json leaves as it is


def log_warnings() -> None:
    """Show what the library warns of on stderr, as it comes."""
    import logging

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler = logging.StreamHandler()
    handler.setFormatter(Printable("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("wandb").propagate = False  # it has a log of its own; what matters of it we say ourselves


def print_error(error: FersweepError) -> None:
    """What was wrong and what to do."""
    say(f"error: {error}")
    if error.hint:
        say(f"hint: {error.hint}")


def print_table(
    title: str, columns: Mapping[str, str], rows: Sequence[Sequence[object]], *, key: str | None = None
) -> None:
    """A table on stdout.

    Args:
        title: Stands above it.
        columns: Headings, each with its side: ``left`` or ``right``.
        rows: Cells, shown as text.
        key: The column that names a row. With one, the widest column stands below the table, a line a row, where a
            terminal is too narrow to show it beside the others.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fer_sweep.cli.console import PatientConsole

    console = PatientConsole()
    if not console.is_terminal:
        console = PatientConsole(width=200)  # a pipe has no width of its own; 80 would cut parameters off
    headings, cells = list(columns), [[printable(str(cell)) for cell in row] for row in rows]
    apart = None if key is None else _set_apart(columns, cells, console.width)
    table = Table(
        title=Text(printable(title)), title_justify="left", box=box.HEAVY_HEAD if apart is None else box.SIMPLE
    )
    for place, heading in enumerate(headings):
        if place != apart:
            table.add_column(heading, justify="right" if columns[heading] == "right" else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for place, cell in enumerate(row) if place != apart))
    console.print(table)
    if key is not None and apart is not None:
        below = Table(box=box.SIMPLE, show_header=True)
        below.add_column(key, no_wrap=True)
        below.add_column(headings[apart], overflow="fold")
        for row in cells:
            below.add_row(Text(row[headings.index(key)]), Text(row[apart]))
        console.print(below)


_NARROWEST = 32
"""Characters of a configuration that can still be read; in fewer it takes dozens of lines a trial."""


def _set_apart(columns: Mapping[str, str], cells: Sequence[Sequence[str]], width: int) -> int | None:
    """The place of the widest column, if the others leave it too little room; None if they do not."""
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    widest = max(range(len(widths)), key=lambda place: widths[place])
    room = width - (3 * len(widths) + 1) - (sum(widths) - widths[widest])  # a line and two spaces a column
    return widest if room < min(_NARROWEST, widths[widest]) else None


def trial_json(record: "TrialRecord", sweep: str | None = None) -> dict[str, Any]:
    """A trial as ``status --json`` and ``best --json`` show it."""
    shape: dict[str, Any] = {
        "id": record.trial_id,
        "state": str(record.state),
        "config": dict(record.config),
        "metrics": _all_metrics(record),
        "reason": record.reason,
    }
    return shape if sweep is None else {"sweep": sweep, **shape}


def candidate_json(candidate: "Candidate") -> dict[str, Any]:
    """A trial as ``best --json`` shows it: with the reason of its verdict."""
    from fer_sweep.verdicts import explain

    return {**trial_json(candidate.record, candidate.sweep), "verdict_reason": explain(candidate.result)}


def selection_json(selection: "Selection") -> dict[str, Any]:
    """A choice as ``best --json`` shows it."""
    return {
        "winner": candidate_json(selection.winner) if selection.winner else None,
        "pareto": [candidate_json(candidate) for candidate in selection.pareto],
        "ranking": [candidate_json(candidate) for candidate in selection.ranking],
        "standard_error": selection.standard_error,
        "reason": selection.reason,
    }


def mean_json(mean: "Mean | None") -> dict[str, Any] | None:
    """A mean with its interval, as ``--json`` shows it."""
    from dataclasses import asdict

    return None if mean is None else asdict(mean)


def trial_rows(records: Sequence["TrialRecord"]) -> list[list[object]]:
    """Rows for TRIAL_COLUMNS; only parameters that differ between trials are shown."""
    varying = _varying(records)
    rows: list[list[object]] = []
    for record in records:
        metrics = _all_metrics(record)
        parameters = " ".join(
            f"{name}={short(record.parameters[name])}" for name in varying if name in record.parameters
        )
        note = record.reason.splitlines()[0] if record.reason else ""
        rows.append(
            [
                record.trial_id,
                record.state,
                f"{metrics['epoch']:.0f}" if "epoch" in metrics else "",
                percent(metrics.get("best_val_acc")),
                points(metrics.get("train_val_gap")),
                record.result.verdict if record.result else "",
                parameters,
                note,
            ]
        )
    return rows


TRIAL_COLUMNS = {
    "trial": "right",
    "state": "left",
    "epoch": "right",
    "best_val_acc": "right",
    "gap": "right",
    "verdict": "left",
    "parameters": "left",
    "note": "left",
}


def ranking_rows(selection: "Selection") -> list[list[object]]:
    """Rows for RANKING_COLUMNS: ``*`` marks the Pareto front, ``>`` the winner."""
    varying = _varying([candidate.record for candidate in selection.ranking])
    return [_ranking_row(place, candidate, selection, varying) for place, candidate in enumerate(selection.ranking, 1)]


RANKING_COLUMNS = {
    "": "left",
    "place": "right",
    "sweep/trial": "left",
    "state": "left",
    "best_val_acc": "right",
    "clean": "right",
    "gap": "right",
    "epoch": "right",
    "parameters": "right",
    "verdict": "left",
    "configuration": "left",
}


def _ranking_row(place: int, candidate: "Candidate", selection: "Selection", varying: Sequence[str]) -> list[object]:
    result = candidate.result
    mark = (">" if candidate is selection.winner else "") + ("*" if candidate in selection.pareto else "")
    values = candidate.record.parameters
    return [
        mark,
        place,
        candidate.name,
        candidate.record.state,
        percent(result.best_val_acc),
        percent(result.val_acc_clean),
        points(result.train_val_gap),
        result.best_epoch,
        f"{result.parameters:,}",
        result.verdict,
        " ".join(f"{name}={short(values[name])}" for name in varying if name in values),
    ]


def architecture_rows(by_model: Mapping[str, "Selection"], overall: "Selection") -> list[list[object]]:
    """Rows for ARCHITECTURE_COLUMNS: each architecture's winner; ``>`` marks the winner of all."""
    rows: list[list[object]] = []
    for model, selection in by_model.items():
        winner = selection.winner
        count = f"{len(selection.ranking)} ({len(selection.pareto)} on the front)"
        if winner is None:
            rows.append(["", model, count, "", "", "", "", "", selection.reason])
            continue
        result = winner.result
        rows.append(
            [
                ">" if winner == overall.winner else "",
                model,
                count,
                winner.name,
                percent(result.best_val_acc),
                percent(result.val_acc_clean),
                points(result.train_val_gap),
                f"{result.parameters:,}",
                result.verdict,
            ]
        )
    return rows


ARCHITECTURE_COLUMNS = {
    "": "left",
    "architecture": "left",
    "trials": "right",
    "winner": "left",
    "best_val_acc": "right",
    "clean": "right",
    "gap": "right",
    "parameters": "right",
    "verdict": "left",
}


def percent(value: float | None) -> str:
    """An accuracy in [0, 1] as a percentage."""
    return "" if value is None else f"{100 * value:.2f} %"


def points(value: float | None) -> str:
    """A gap as percentage points."""
    return "" if value is None else f"{100 * value:+.1f}"


def short(value: object) -> str:
    """A parameter's value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _all_metrics(record: "TrialRecord") -> dict[str, Any]:
    if record.result is None:
        return dict(record.metrics)
    return {"epoch": record.result.epochs, **record.metrics, **record.result.model_dump(mode="json")}


def _varying(records: Sequence["TrialRecord"]) -> list[str]:
    names = dict.fromkeys(name for record in records for name in record.parameters)
    varying = [n for n in names if len({repr(record.parameters.get(n)) for record in records}) > 1]
    return varying if len(records) > 1 else list(names)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
