"""Trials as rows: JSON, CSV, parquet, and a short report in Markdown."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_sweep.errors import InputError
from fer_sweep.files import atomic_path
from fer_sweep.records import TrialRecord, TrialResult
from fer_sweep.reports.shown import plain
from fer_sweep.reports.sources import Report, ReportedSweep, certainty

_RANKED = 10
"""Trials in the Markdown report."""
_TEXT_OF_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that a spreadsheet takes for a formula."""


def rows(report: Report) -> list[dict[str, Any]]:
    """One object per trial: state, parameters and metrics."""
    front = {(c.sweep, c.record.trial_id) for c in report.selection.pareto}
    winner = report.selection.winner
    first = (winner.sweep, winner.record.trial_id) if winner else None
    return [
        {
            "sweep": sweep.id,
            "trial": record.trial_id,
            "state": str(record.state),
            "winner": (sweep.id, record.trial_id) == first,
            "pareto": (sweep.id, record.trial_id) in front,
            "parameters": dict(record.parameters),
            "metrics": metrics_of(record),
            "reason": record.reason,
            "attempt": record.attempt,
            "started_at": record.started_at,
            "ended_at": record.ended_at,
        }
        for sweep, record in report.trials
    ]


def metrics_of(record: TrialRecord) -> dict[str, Any]:
    """A trial's result, or the metrics of its latest epoch; numbers that are not finite become None."""
    if record.result is None:
        return {name: _finite(value) for name, value in record.metrics.items()}
    values = record.result.model_dump(mode="json")
    values.pop("classes", None)  # the names in per_class_recall
    recall = dict(zip(record.result.classes, values.pop("per_class_recall"), strict=True))
    return {name: _finite(value) for name, value in values.items()} | {"per_class_recall": recall}


def flat_rows(report: Report) -> list[dict[str, Any]]:
    """The rows flattened: parameters as ``param.lr``, recall as ``recall.happy``, without the confusion matrix.

    Every row has the same columns.
    """
    found = []
    for row in rows(report):
        metrics = dict(row.pop("metrics"))
        metrics.pop("confusion_matrix", None)
        recall = metrics.pop("per_class_recall", {})
        parameters = row.pop("parameters")
        found.append(
            {
                **row,
                **{f"param.{name}": value for name, value in parameters.items()},
                **metrics,
                **{f"recall.{name}": value for name, value in recall.items()},
            }
        )
    names = dict.fromkeys(name for row in found for name in row)
    order = sorted(names, key=lambda name: (_group(name), list(names).index(name)))
    return [{name: row.get(name) for name in order} for row in found]


def json_text(report: Report) -> str:
    """The rows as one JSON document, an array."""
    return json.dumps(rows(report), indent=2, allow_nan=False) + "\n"


def csv_text(report: Report) -> str:
    """The rows as CSV after RFC 4180, with a heading.

    Text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    table = flat_rows(report)
    stream = io.StringIO()
    if table:
        writer = csv.DictWriter(stream, list(table[0]), lineterminator="\r\n")
        writer.writerow({name: _cell(name) for name in table[0]})
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in table)
    return stream.getvalue()


def write_parquet(report: Report, target: Path) -> None:
    """The rows as a parquet file.

    Raises:
        InputError: pyarrow is not installed.
        StorageError: The file cannot be written.
    """
    try:
        import pyarrow as pa  # only here: an optional part
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"pyarrow is not installed: {error}", hint="pip install 'fersweep[parquet]', or use --format csv"
        ) from error
    table = flat_rows(report)
    columns = {name: _column([row[name] for row in table]) for name in (table[0] if table else ())}
    with atomic_path(target) as temporary:
        parquet.write_table(pa.table(columns), temporary)


def markdown(report: Report) -> str:
    """A short report: sweeps, winner, certainty, best trials, failed trials, how to repeat it."""
    parts = ["# fersweep report", "", *_sweeps(report), *_winner(report), *_certainty(report)]
    parts += [*_ranking(report), *_failed(report)]
    parts += ["## Repeat it", ""]
    for sweep in report.sweeps:
        parts += [f"The sweep file of {_md(sweep.label)}:", "", *_fenced(sweep.file, "yaml")]
        parts += _fenced(f"{sweep.create}\nfersweep agent\n", "sh")
    return "\n".join(parts).rstrip() + "\n"


def _sweeps(report: Report) -> list[str]:
    heading = ["sweep", "architectures", "method", "trials", "complete", "pruned", "failed"]
    body = []
    for sweep in report.sweeps:
        states = [str(record.state) for record in sweep.records]
        counts = [states.count(state) for state in ("complete", "pruned", "failed")]
        body.append([sweep.label, ", ".join(sweep.models), sweep.method, len(states), *counts])
    return [*_table(heading, body), ""]


def _winner(report: Report) -> list[str]:
    selection, winner = report.selection, report.selection.winner
    if winner is None:
        return ["## Winner", "", f"None: {_md(selection.reason)}.", ""]
    result = winner.result
    return [
        "## Winner",
        "",
        f"Trial {_md(winner.record.trial_id)} of sweep {_md(winner.sweep)}: best_val_acc "
        f"{100 * result.best_val_acc:.2f} %, gap {100 * result.train_val_gap:+.1f} points, {result.verdict}, "
        f"{result.parameters:,} weights. Why: {_md(selection.reason)}.",
        "",
        *_table(["class", "recall", "images"], _recall(result)),
        "",
    ]


def _certainty(report: Report) -> list[str]:
    lines = ["## How certain the choice is", ""]
    for part in certainty(report):
        lines += [f"### {part.heading}", "", *(f"- {_md(line)}" for line in part.lines), ""]
    return lines


def _recall(result: TrialResult) -> list[list[object]]:
    return [
        [name, f"{100 * share:.1f} %", sum(row)]
        for name, share, row in zip(result.classes, result.per_class_recall, result.confusion_matrix, strict=True)
    ]


def _ranking(report: Report) -> list[str]:
    front = report.selection.pareto
    body = []
    shown = list(dict.fromkeys(c.record.trial_id + "\0" + c.sweep for c in report.selection.ranking[:_RANKED]))
    candidates = [
        c
        for c in report.selection.ranking
        if c.record.trial_id + "\0" + c.sweep in shown or c in front or c is report.selection.winner
    ]
    for candidate in candidates:
        result, record = candidate.result, candidate.record
        mark = ("winner" if candidate is report.selection.winner else "") + (" front" if candidate in front else "")
        values = " ".join(f"{name}={short(value)}" for name, value in record.parameters.items())
        accuracy, gap = f"{100 * result.best_val_acc:.2f} %", f"{100 * result.train_val_gap:+.1f}"
        body.append(
            [mark.strip(), f"{candidate.sweep}/{record.trial_id}", record.state, accuracy, gap, result.verdict, values]
        )
    heading = ["", "trial", "state", "best_val_acc", "gap", "verdict", "parameters"]
    return [f"## The best {_RANKED} and the Pareto front", "", *_table(heading, body), ""]


def _failed(report: Report) -> list[str]:
    failed = [(s, r) for s, r in report.trials if r.state == "failed"]
    if not failed:
        return []
    body = [[f"{s.id}/{r.trial_id}", plain(r.reason or "", 200)] for s, r in failed[:_RANKED]]
    return [f"## Failed: {len(failed)}", "", *_table(["trial", "reason"], body), ""]


def short(value: object) -> str:
    """A parameter's value in few characters.

    >>> short(0.00123456), short(64), short("adamw")
    ('0.00123', '64', 'adamw')
    """
    return f"{value:.3g}" if isinstance(value, float) else plain(str(value), 40)


def _table(heading: Sequence[str], body: Sequence[Sequence[object]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *body]
    return ["| " + " | ".join(line if line == "---" else _md(line) for line in row) + " |" for row in lines]


def _md(value: object) -> str:
    """Untrusted text escaped for Markdown, on one line: no markup, link or HTML."""
    text = plain(str(value), 600)
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#!|<>~&$" else c for c in text).replace("://", ":\u200b//")


def _fenced(text: str, language: str) -> list[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in text.replace("\n", " ").split() if set(run) == {"`"}), default=0))
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]


def _group(name: str) -> int:
    """The rank of a column: trial, parameters, results, the rest."""
    if name in ("sweep", "trial", "state", "winner", "pareto"):
        return 0
    if name.startswith("param."):
        return 1
    return 3 if name in ("reason", "attempt", "started_at", "ended_at") or name.startswith("recall.") else 2


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value)
    if isinstance(value, str) and value.startswith(_TEXT_OF_FORMULA):
        return f"'{value}"
    return value


def _column(values: list[Any]) -> list[Any]:
    """A column of one type for parquet; mixed values become JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values] if float in kinds else values
    if len(kinds) <= 1 and not kinds & {dict, list, tuple}:
        return values
    return [None if value is None else json.dumps(value) for value in values]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def label_of(sweep: ReportedSweep, record: TrialRecord, *, several: bool) -> str:
    """A trial's name in figures, with its sweep if there are several."""
    return plain(f"{sweep.id}/{record.trial_id}" if several else f"trial {record.trial_id}", 40)
