"""Trials as rows: JSON, CSV, parquet, the tables of ``fersweep best``, and a short report in Markdown."""

import csv
import io
import json
import math
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fer_sweep.config.trial import SYNTHETIC
from fer_sweep.errors import InputError
from fer_sweep.files import atomic_path
from fer_sweep.formatting import configurations, percent, plain, points, short
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.reports.reproducing import steps
from fer_sweep.reports.sources import Report, title
from fer_sweep.reports.summary import BY_ARCHITECTURE, answer, architectures, certainty
from fer_sweep.selection import SHOWN, Candidate, Selection

if TYPE_CHECKING:
    from jinja2 import Environment

_MEASURED = ("best_val_acc", "clean", "gap")
RANKING_COLUMNS = ("", "#", "sweep/trial", *_MEASURED, "verdict", "state", "epoch", "parameters", "configuration")
_AFTER_TRIAL = 3
"""Where RANKING_COLUMNS admit the metric that ranks, if it is another one than the validation accuracy."""
ARCHITECTURE_COLUMNS = ("", "architecture", "trials", "winner", *_MEASURED, "parameters", "verdict")
_RANKED = 10
"""Trials in the Markdown report."""
_START_OF_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that a spreadsheet takes for a formula."""


def ranking(selection: Selection, label: Callable[[str], str] = str) -> tuple[list[str], list[list[object]]]:
    """RANKING_COLUMNS, with the metric that ranks, and a row a trial: ``*`` marks the Pareto front, ``>`` the winner.

    Args:
        selection: The choice among the trials.
        label: What a trial is called, by SWEEP/TRIAL.
    """
    columns = list(RANKING_COLUMNS)
    lines = configurations([candidate.record.parameters for candidate in selection.ranking])
    rows: list[list[object]] = []
    for place, (candidate, line) in enumerate(zip(selection.ranking, lines, strict=True), 1):
        result = candidate.result
        mark = (">" if candidate is selection.winner else "") + ("*" if candidate in selection.pareto else "")
        rest = [result.verdict, candidate.record.state, result.best_epoch, f"{result.parameters:,}", line]
        rows.append([mark, place, label(candidate.name), *_measured(candidate), *rest])
    if selection.metric is not None:
        columns.insert(_AFTER_TRIAL, selection.metric.name)
        for row, candidate in zip(rows, selection.ranking, strict=True):
            row.insert(_AFTER_TRIAL, "" if candidate.value is None else short(candidate.value))
    return columns, rows


def architecture_rows(by_model: Mapping[str, Selection], overall: Selection) -> list[list[object]]:
    """Rows for ARCHITECTURE_COLUMNS: each architecture's winner; ``>`` marks the overall winner."""
    rows: list[list[object]] = []
    for model, selection in by_model.items():
        winner = selection.winner
        count = f"{len(selection.ranking)} ({len(selection.pareto)} on the front)"
        if winner is None:
            rows.append(["", model, count, "", "", "", "", "", selection.reason])
            continue
        mark = ">" if winner == overall.winner else ""
        size, verdict = f"{winner.result.parameters:,}", winner.result.verdict
        rows.append([mark, model, count, winner.name, *_measured(winner), size, verdict])
    return rows


def _measured(candidate: Candidate) -> list[object]:
    result = candidate.result
    return [percent(result.best_val_acc), percent(result.val_acc_clean), points(result.train_val_gap)]


def rows(report: Report) -> list[dict[str, Any]]:
    """One object per trial: state, parameters and metrics."""
    winner = report.selection.winner
    front = {candidate.name for candidate in report.selection.pareto}
    found = []
    for sweep, record in report.trials:
        name = f"{sweep.id}/{record.trial_id}"
        found.append(
            {
                "sweep": sweep.id,
                "trial": record.trial_id,
                "state": str(record.state),
                "winner": winner is not None and winner.name == name,
                "pareto": name in front,
                "parameters": dict(record.parameters),
                "metrics": _metrics(record),
                "reason": record.reason,
                "attempt": record.attempt,
                "started_at": record.started_at,
                "ended_at": record.ended_at,
            }
        )
    return found


def _metrics(record: TrialRecord) -> dict[str, Any]:
    """A trial's result, or the metrics of its latest epoch; numbers that are not finite become None."""
    values: dict[str, Any] = dict(record.metrics)
    if record.result is not None:
        values = record.result.model_dump(mode="json")
        values.pop("classes", None)  # the names in per_class_recall
        recall = zip(record.result.classes, values.pop("per_class_recall"), strict=True)
        values["per_class_recall"] = dict(recall)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def flat_rows(report: Report) -> list[dict[str, Any]]:
    """The rows flattened: parameters as ``param.lr``, recall as ``recall.happy``, without the confusion matrix.

    Every row has the same columns.
    """
    found = []
    for row in rows(report):
        parameters, metrics = row.pop("parameters"), row.pop("metrics")
        metrics.pop("confusion_matrix", None)
        last = {name: row.pop(name) for name in ("reason", "attempt", "started_at", "ended_at")}
        last |= {f"recall.{name}": value for name, value in metrics.pop("per_class_recall", {}).items()}
        found.append((row, {f"param.{name}": value for name, value in parameters.items()}, metrics, last))
    names = dict.fromkeys(name for parts in zip(*found, strict=True) for part in parts for name in part)
    return [{name: row.get(name) for name in names} for row in (ChainMap(*parts) for parts in found)]


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
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow(map(_cell, table[0]))
        writer.writerows(map(_cell, row.values()) for row in table)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_START_OF_FORMULA) else value


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


def _column(values: list[Any]) -> list[Any]:
    """A column of one type for parquet; mixed values become JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and not kinds & {dict, list, tuple}:
        return values
    return [None if value is None else json.dumps(value) for value in values]


def markdown(report: Report) -> str:
    """A short report: the answer, the architectures, certainty, best trials, failed trials, how to repeat it."""
    templates = templates_of_reports(finalize=_escaped, keep_trailing_newline=True)
    templates.filters["fenced"] = _fenced
    columns, ranked = ranking(report.selection, report.label)
    data = dict.fromkeys(str(record.config.get("data", "")) for _, record in report.trials)
    return templates.get_template("report.md.j2").render(
        report=report,
        title=title(report.sweeps),
        answer=answer(report),
        by_architecture=BY_ARCHITECTURE,
        architectures=architectures(report),
        certainty=certainty(report, most=SHOWN),
        steps=steps(report, dict.fromkeys((name for name in data if name not in ("", SYNTHETIC)), "")),
        ranked=_RANKED,
        columns=columns,
        ranking=[row for place, row in enumerate(ranked) if place < _RANKED or row[0]],
        failed=[(sweep, record) for sweep, record in report.trials if record.state is TrialState.FAILED],
    )


def templates_of_reports(**options: Any) -> "Environment":
    """The jinja environment with the filters that both reports use; ``options`` are jinja's, for escaping."""
    import jinja2  # only here: it takes a tenth of a second, and `fersweep best` needs no templates

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("fer_sweep.reports"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    found.filters |= {"percent": percent, "plain": plain, "points": points, "short": short}
    return found


def _escaped(value: object) -> object:
    """Untrusted text escaped for Markdown, on one line: no markup, link or HTML."""
    if isinstance(value, Markup):
        return value
    text = plain(str(value), 600)
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#!|<>~&$" else c for c in text).replace("://", ":\u200b//")


def _fenced(text: str, language: str) -> Markup:
    fence = "```"
    while fence in text:
        fence += "`"
    return Markup(f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}")
