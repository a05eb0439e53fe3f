"""Parallel coordinates: trials as lines through the axes of their parameters. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from fer_sweep.config.values import canonical, is_number
from fer_sweep.records import TrialRecord
from fer_sweep.reports.plot import SCALE, colour_scale, figure_json, safe
from fer_sweep.reports.shown import Axis, plain
from fer_sweep.reports.tables import short

NONE = "none"
"""Where a line crosses the axis of a parameter that its trial lacks."""
_MOST_CHOICES = 24
"""Choices that an axis has names for; of more only some."""


@dataclass(frozen=True)
class Dimension:
    """One axis as it is drawn."""

    name: str
    kind: str
    """``linear``, ``log`` (the coordinates are decimal logarithms) or ``choice`` (they are places in ``choices``)."""
    values: tuple[float, ...]
    """A coordinate a trial."""
    range: tuple[float, float]
    ticks: tuple[tuple[float, str], ...] = ()
    """Coordinates and what stands there; empty leaves them to Plotly."""
    choices: tuple[str, ...] = ()


def dimension(axis: Axis, records: Sequence[TrialRecord]) -> Dimension:
    """An axis with the coordinates of these trials, which are at least one."""
    values = [record.parameters.get(axis.name, record.config.get(axis.name)) for record in records]
    known = [value for value in values if value is not None]
    if axis.choices is not None or not all(map(is_number, known)) or not known:
        return _choice(axis, values)
    return _numeric(axis, values)


def metric(name: str, values: Sequence[float]) -> Dimension:
    """An axis of a result, in percent or points."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.02 or 1.0
    return Dimension(name, "linear", tuple(_rounded(v) for v in values), (low - pad, high + pad))


def common_axes(sweeps: Sequence[Sequence[Axis]], models: Sequence[str]) -> tuple[Axis, ...]:
    """The axes of all sweeps, after one for the architecture where there are several."""
    first, *others = [{axis.name: axis for axis in axes} for axes in sweeps]
    common = tuple(
        _merged([axis, *(axes[name] for axes in others)])
        for name, axis in first.items()
        if name != "model" and all(name in axes for axes in others)
    )
    return (*([Axis("model", log=False, choices=tuple(models))] if len(models) > 1 else []), *common)


def _merged(same: Sequence[Axis]) -> Axis:
    listed = [axis.choices for axis in same]
    choices = None
    if all(values is not None for values in listed):
        choices = tuple({canonical(v): v for values in listed for v in values or ()}.values())
    bounds = [axis.bounds for axis in same if axis.bounds is not None]
    joined = (min(b[0] for b in bounds), max(b[1] for b in bounds)) if len(bounds) == len(same) else None
    return Axis(same[0].name, all(axis.log for axis in same), choices, joined)


def _choice(axis: Axis, values: Sequence[Any]) -> Dimension:
    listed = [*(axis.choices or ()), *(value for value in values if value is not None)]
    distinct = {canonical(value): value for value in listed}
    if all(map(is_number, distinct.values())):
        distinct = dict(sorted(distinct.items(), key=lambda item: item[1]))
    places = {text: place for place, text in enumerate(distinct)}
    names = [short(value) for value in distinct.values()]
    # None may be a choice of its own, such as no pretrained weights.
    lacking = places.get("None", len(places))
    if lacking == len(places) and any(value is None for value in values):
        names.append(NONE)
    coordinates = tuple(float(lacking if value is None else places[canonical(value)]) for value in values)
    step = math.ceil(len(names) / _MOST_CHOICES)
    ticks = tuple((float(place), name) for place, name in enumerate(names) if place % step == 0)
    return Dimension(axis.name, "choice", coordinates, (-0.3, len(names) - 0.7), ticks, tuple(names))


def _numeric(axis: Axis, values: Sequence[Any]) -> Dimension:
    known = [float(value) for value in values if value is not None]
    low, high = min(known), max(known)
    if axis.bounds is not None and axis.bounds[0] <= low and high <= axis.bounds[1]:
        low, high = axis.bounds
    is_log = axis.log and low > 0

    def place(value: float) -> float:
        return math.log10(value) if is_log else value

    start, end = place(low), place(high)
    span = end - start or abs(end) or 1.0
    ticks = log_ticks(low, high) if is_log else ()
    if start == end:
        start, end = start - 0.5 * span, end + 0.5 * span
    elsewhere = start - 0.1 * span
    if lacking := any(value is None for value in values):
        ticks = ((elsewhere, NONE), *(ticks or tuple((v, short(v)) for v in _steps(start, end))))
    coordinates = tuple(_rounded(elsewhere if value is None else place(float(value))) for value in values)
    return Dimension(
        axis.name, "log" if is_log else "linear", coordinates, (elsewhere if lacking else start, end), ticks
    )


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


def _steps(start: float, end: float) -> list[float]:
    return [start + (end - start) * part / 4 for part in range(5)]


def _rounded(value: float) -> float:
    """Six digits: no eye sees more, and the page is shorter."""
    return float(f"{value:.6g}")


def shown_name(dimension: Dimension) -> str:
    """What stands above the axis."""
    name = plain(dimension.name, 30)
    return f"{name} (log)" if dimension.kind == "log" else name


def figure(dimensions: Sequence[Dimension], colours: Sequence[float]) -> dict[str, Any]:
    """Parallel coordinates as Plotly's JSON, to be brushed.

    Args:
        dimensions: The axes, of as many trials each.
        colours: A number a trial; the page exchanges them for another metric's.
    """
    drawn = []
    for axis in dimensions:
        ticks = {
            "tickvals": [place for place, _ in axis.ticks],
            "ticktext": [safe(name, 20) for _, name in axis.ticks],
        }
        drawn.append(
            {
                "label": safe(shown_name(axis), 36),
                "values": list(axis.values),
                "range": list(axis.range),
                **(ticks if axis.ticks else {}),
            }
        )
    line = {"color": list(colours), "colorscale": colour_scale(SCALE), "showscale": True}
    trace = go.Parcoords(dimensions=drawn, line=line, labelangle=-18, labelside="top")
    # Names stand left of their axis, and any axis may be drawn to the left edge.
    longest = max((len(name) for axis in dimensions for _, name in axis.ticks), default=0)
    margin = {"l": 24 + 7 * min(max(longest, 5), 20), "r": 30, "t": 90, "b": 24}
    return figure_json([trace], height=460, margin=margin)
