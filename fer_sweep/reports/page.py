"""The data of the page's script: the table of trials, the parallel coordinates, the figures. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from fer_sweep.config.values import canonical, is_number
from fer_sweep.formatting import plain, short
from fer_sweep.records import TrialRecord
from fer_sweep.reports.plot import DARK, SCALE, Figure, colours_of, figure_json, safe
from fer_sweep.reports.sources import Axis, Report, ReportedSweep, common_axes
from fer_sweep.reports.tables import flat_rows
from fer_sweep.selection import Candidate
from fer_sweep.selection.choice import gap_error
from fer_sweep.selection.intervals import Z95, binomial_error

_FIRST = ("mark", "trial", "state", "best_val_acc", "train_val_gap", "val_acc_clean", "verdict")
_LAST = ("best_epoch", "epochs", "macro_f1", "parameters", "seconds", "images_per_second", "sweep", "reason")
"""Columns before and after the parameters; the page's script has their labels and formats."""
_LONGEST_TEXT = 300
_MOST_CHOICES = 24
"""Choices that an axis has names for; of more only some."""
NONE = "none"
"""Where a line crosses the axis of a parameter that its trial lacks."""


def document(report: Report, shown: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """Everything the page's script needs, as plain JSON values."""
    return {
        "table": table(report),
        "views": views(report),
        "figures": {figure.id: figure.spec for some in shown.values() for figure in some},
        "dark": DARK,
        "colours": colours_of(report.models),
        "chance": [_chance(sweep, record) for sweep, record in report.trials],
    }


def _chance(sweep: ReportedSweep, record: TrialRecord) -> list[float] | None:
    """How far chance moves a trial's accuracy and gap, at 95 %: those of two trials add up as squares."""
    if record.result is None:
        return None
    found = Candidate(sweep.id, record, record.result)
    return [
        _rounded(Z95 * error) for error in (binomial_error(record.result.best_val_acc, found.images), gap_error(found))
    ]


def table(report: Report) -> dict[str, Any]:
    """The table of trials: columns and rows; only parameters that are swept, or differ, have a column."""
    flat = flat_rows(report)
    swept = dict.fromkeys(f"param.{axis.name}" for sweep in report.sweeps for axis in sweep.axes)
    names = [key for key in (flat[0] if flat else ()) if key.startswith("param.")]
    differ = [key for key in names if len({canonical(row[key]) for row in flat}) > 1]
    known = dict.fromkeys(["param.model"] * ("param.model" in differ) + [*swept, *differ])
    keys = [key for key in (*_FIRST, *known, *_LAST) if key != "sweep" or len(report.sweeps) > 1]
    rows = []
    for row, (sweep, record) in zip(flat, report.trials, strict=True):
        if len(report.sweeps) > 1:
            row["trial"] = report.label(f"{sweep.id}/{record.trial_id}")
        row["mark"] = ("winner" if row["winner"] else "") or ("front" if row["pareto"] else "")
        row["reason"] = row["reason"] or ""
        rows.append([_cell(row.get(key)) for key in keys])
    return {"columns": [plain(key, 46) for key in keys], "rows": rows}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return _rounded(value)
    return value if value is None or isinstance(value, bool | int) else plain(str(value), _LONGEST_TEXT)


def views(report: Report) -> list[dict[str, Any]]:
    """The parallel coordinates of each sweep, and of all together if there are several."""
    found = []
    if len(report.sweeps) > 1:
        found.append(_view(report, "all sweeps", report.trials, common_axes(report.sweeps)))
    for sweep in report.sweeps:
        found.append(_view(report, report.names[sweep.id], [(sweep, record) for record in sweep.records], sweep.axes))
    return [view for view in found if view is not None]


def _view(
    report: Report, label: str, trials: Sequence[tuple[ReportedSweep, TrialRecord]], axes: Sequence[Axis]
) -> dict[str, Any] | None:
    ended = [(sweep, r, r.result) for sweep, r in trials if r.result is not None and r.result.best_epoch > 0]
    if not ended:
        return None
    drawn = [dimension(axis, [record for _, record, _ in ended]) for axis in axes]
    drawn.append(_metric("accuracy, %", [result.best_val_acc for _, _, result in ended]))
    drawn.append(_metric("gap, points", [result.train_val_gap for _, _, result in ended]))
    return {
        "label": label,
        "figure": _figure(drawn),
        "rows": [report.places[f"{sweep.id}/{record.trial_id}"] for sweep, record, _ in ended],
        "dimensions": [{"name": plain(d.name, 40), "kind": d.kind, "choices": list(d.choices)} for d in drawn],
    }


@dataclass(frozen=True)
class Dimension:
    """One axis of the parallel coordinates."""

    name: str
    kind: str
    """``linear``, ``log`` (the coordinates are decimal logarithms) or ``choice`` (they are places in ``choices``)."""
    values: tuple[float, ...]
    """A coordinate a trial."""
    range: tuple[float, float]
    ticks: tuple[tuple[float, str], ...] = ()
    """Coordinates and what stands there; empty leaves them to Plotly."""
    choices: tuple[str, ...] = ()

    @property
    def plotly(self) -> dict[str, Any]:
        """As Plotly's JSON."""
        name = plain(self.name, 30)
        found = {
            "label": safe(f"{name} (log)" if self.kind == "log" else name, 36),
            "values": [_rounded(value) for value in self.values],
            "range": list(self.range),
        }
        if self.ticks:
            found["tickvals"] = [place for place, _ in self.ticks]
            found["ticktext"] = [safe(name, 20) for _, name in self.ticks]
        return found


def dimension(axis: Axis, records: Sequence[TrialRecord]) -> Dimension:
    """An axis with the coordinates of these trials, which are at least one."""
    values = [record.parameters.get(axis.name, record.config.get(axis.name)) for record in records]
    known = [value for value in values if value is not None]
    if axis.choices is not None or not known or not all(map(is_number, known)):
        return _choice(axis, values)
    return _numeric(axis, values, min(known), max(known))


def _metric(name: str, shares: Sequence[float]) -> Dimension:
    values = tuple(100 * share for share in shares)
    pad = (max(values) - min(values)) * 0.02 or 1.0
    return Dimension(name, "linear", values, (min(values) - pad, max(values) + pad))


def _choice(axis: Axis, values: Sequence[Any]) -> Dimension:
    listed = [*(axis.choices or ()), *(value for value in values if value is not None)]
    distinct = {canonical(value): value for value in listed}
    if all(map(is_number, distinct.values())):
        distinct = dict(sorted(distinct.items(), key=lambda item: item[1]))
    places = {text: place for place, text in enumerate(distinct)}
    names = [plain(short(value), 40) for value in distinct.values()]
    # None may be a choice of its own, such as no pretrained weights.
    lacking = places.get("None", len(places))
    if lacking == len(places) and None in values:
        names.append(NONE)
    coordinates = tuple(float(lacking if value is None else places[canonical(value)]) for value in values)
    step = math.ceil(len(names) / _MOST_CHOICES)
    ticks = tuple((float(place), name) for place, name in enumerate(names) if place % step == 0)
    return Dimension(axis.name, "choice", coordinates, (-0.3, len(names) - 0.7), ticks, tuple(names))


def _numeric(axis: Axis, values: Sequence[Any], low: float, high: float) -> Dimension:
    if axis.bounds is not None and axis.bounds[0] <= low and high <= axis.bounds[1]:
        low, high = axis.bounds
    is_log = axis.log and low > 0
    start, end = (math.log10(low), math.log10(high)) if is_log else (low, high)
    span = end - start or abs(end) or 1.0
    if start == end:
        start, end = start - 0.5 * span, end + 0.5 * span
    ticks = log_ticks(low, high) if is_log else ()
    elsewhere = start - 0.1 * span
    if None in values:
        steps = [start + (end - start) * part / 4 for part in range(5)]
        ticks = ((elsewhere, NONE), *(ticks or tuple((step, short(step)) for step in steps)))
        start = elsewhere
    coordinates = tuple(elsewhere if v is None else math.log10(v) if is_log else float(v) for v in values)
    return Dimension(axis.name, "log" if is_log else "linear", coordinates, (start, end), ticks)


def log_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Decimal logarithms of round numbers between two positive ones, and their names.

    >>> [name for _, name in log_ticks(3e-4, 1e-2)]
    ['0.0005', '0.001', '0.002', '0.005', '0.01']
    >>> [name for _, name in log_ticks(1e-6, 1e-1)]
    ['1e-06', '1e-05', '0.0001', '0.001', '0.01', '0.1']
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    numbers = [factor * 10.0**decade for decade in decades for factor in factors]
    inside = [n for n in numbers if low * 0.999 <= n <= high * 1.001]
    return tuple((math.log10(n), f"{n:.6g}") for n in inside or (low, high))


def _rounded(value: float) -> float:
    """Six digits, to keep the page small."""
    return float(f"{value:.6g}")


def _figure(dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """Parallel coordinates, to be brushed; the page colours the lines by the last dimension or the one before."""
    line = {"colorscale": list(SCALE), "showscale": True}
    trace = go.Parcoords(dimensions=[d.plotly for d in dimensions], line=line, labelangle=-18, labelside="top")
    # Names stand left of their axis, and any axis may be drawn to the left edge.
    longest = max((len(name) for axis in dimensions for _, name in axis.ticks), default=0)
    margin = {"l": 24 + 7 * min(max(longest, 5), 20), "r": 30, "t": 90, "b": 24}
    return figure_json([trace], height=460, margin=margin)
