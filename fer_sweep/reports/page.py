"""The data of the page's script: the table of trials, the parallel coordinates, the figures. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from fer_sweep.records import TrialRecord
from fer_sweep.reports import figures, parallel
from fer_sweep.reports.optuna_view import Importance
from fer_sweep.reports.plot import Figure, dark_colours
from fer_sweep.reports.shown import Axis, plain
from fer_sweep.reports.sources import Report, ReportedSweep, TrialKey, best_of_each_model, best_trials
from fer_sweep.reports.tables import flat_rows

_FIRST = {
    "mark": "text",
    "sweep": "text",
    "trial": "text",
    "state": "text",
    "best_val_acc": "percent",
    "train_val_gap": "points",
    "val_acc_clean": "percent",
    "verdict": "text",
}
"""Columns before the swept parameters, and the format of their values."""
_LAST = {
    "best_epoch": "whole",
    "epochs": "whole",
    "macro_f1": "number",
    "parameters": "whole",
    "seconds": "whole",
    "images_per_second": "whole",
    "reason": "text",
}
"""Columns after them."""
_LABELS = {"mark": "", "parameters": "weights", "reason": "note"}
_LONGEST_REASON = 300


def row_places(report: Report) -> dict[TrialKey, int]:
    """The row of every trial in the page's table."""
    return {(sweep.id, record.trial_id): place for place, (sweep, record) in enumerate(report.trials)}


def table(report: Report) -> dict[str, Any]:
    """The table of trials: columns and rows; only swept parameters have a column."""
    axes = list(dict.fromkeys(axis.name for sweep in report.sweeps for axis in sweep.axes))
    flat = flat_rows(report)
    kinds = {**_FIRST, **{f"param.{name}": "parameter" for name in axes}, **_LAST}
    if len(report.sweeps) == 1:
        del kinds["sweep"]
    columns = [
        {"key": key, "label": _LABELS.get(key, plain(key.removeprefix("param."), 40)), "kind": kind}
        for key, kind in kinds.items()
    ]
    for row in flat:
        row["mark"] = ("winner" if row["winner"] else "") or ("front" if row["pareto"] else "")
        row["reason"] = plain(row["reason"] or "", _LONGEST_REASON)
    return {"columns": columns, "rows": [[_cell(row.get(c["key"])) for c in columns] for row in flat]}


def views(report: Report) -> list[dict[str, Any]]:
    """The parallel coordinates of each sweep, and of all together if there are several."""
    places = row_places(report)
    found = []
    if len(report.sweeps) > 1:
        models = list(dict.fromkeys(model for sweep in report.sweeps for model in sweep.models))
        common = parallel.common_axes([sweep.axes for sweep in report.sweeps], models)
        found.append(_view("all sweeps", report.trials, common, places))
    found += [_view(s.label, [(s, record) for record in s.records], s.axes, places) for s in report.sweeps]
    return [view for view in found if view is not None]


def figures_of(
    report: Report, importances: Sequence[tuple[ReportedSweep, Importance, Importance]]
) -> dict[str, list[Figure]]:
    """The figures by section; empty if no trial has a result yet."""
    selection = report.selection
    if not selection.ranking:
        return {}
    places = row_places(report)
    found = {
        "pareto": [figures.pareto(report, places)],
        "best": figures.curves(report, best_trials(selection), "best"),
        "importance": [figures.importances(sweep, *both, several=len(importances) > 1) for sweep, *both in importances],
        "progress": [figures.progress(report, places)],
    }
    models = best_of_each_model(selection)
    if len(models) > 1:
        found["models"] = figures.curves(report, models, "models")
    if selection.winner is not None:
        found["winner"] = [figures.confusion(selection.winner), figures.recall(selection.winner)]
    return found


def document(report: Report, shown: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """Everything the page's script needs, as plain JSON values."""
    return {
        "table": table(report),
        "views": views(report),
        "figures": {figure.id: figure.spec for some in shown.values() for figure in some},
        "dark": dark_colours(),
    }


def _view(
    label: str,
    trials: Sequence[tuple[ReportedSweep, TrialRecord]],
    axes: Sequence[Axis],
    places: Mapping[TrialKey, int],
) -> dict[str, Any] | None:
    ended = [(sweep, r, r.result) for sweep, r in trials if r.result is not None and r.result.best_epoch > 0]
    if not ended:
        return None
    records = [record for _, record, _ in ended]
    accuracy = [100 * result.best_val_acc for _, _, result in ended]
    gap = [100 * result.train_val_gap for _, _, result in ended]
    drawn = [parallel.dimension(axis, records) for axis in axes]
    drawn += [parallel.metric("accuracy, %", accuracy), parallel.metric("gap, points", gap)]
    return {
        "label": label,
        "figure": parallel.figure(drawn, [round(value, 3) for value in accuracy]),
        "rows": [places[sweep.id, record.trial_id] for sweep, record, _ in ended],
        "dimensions": [{"name": plain(d.name, 40), "kind": d.kind, "choices": list(d.choices)} for d in drawn],
        "accuracy": [round(value, 3) for value in accuracy],
        "gap": [round(value, 3) for value in gap],
    }


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if value is None or isinstance(value, bool | int) else plain(str(value), _LONGEST_REASON)
