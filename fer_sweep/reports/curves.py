"""Learning curves of the HTML report. Pure."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from fer_sweep.formatting import short
from fer_sweep.reports.plot import STAR_MARKER, Figure, colours_of, figure_json, line_colour, safe
from fer_sweep.reports.sources import Report
from fer_sweep.selection import Candidate

_CURVES = (
    ("accuracy", "Accuracy", "accuracy, %", "val_acc", "train_acc"),
    ("loss", "Loss", "loss", "val_loss", "train_loss"),
    ("gap", "Train-val gap", "train-val gap, points", "train_val_gap", None),
)
"""Id, title, unit, solid line and dotted line."""


def curves(report: Report, chosen: Sequence[Candidate], name: str) -> list[Figure]:
    """Accuracy, loss and gap over the epochs of some trials; the winner's line is wider, with a star.

    Args:
        report: With the curves.
        chosen: The trials, best first.
        name: Prefix of the figures' ids; ``models`` puts the architecture before the trial.
    """
    known, winner = [c for c in chosen if c.name in report.curves], report.selection.winner
    labels = [report.label(c.name) for c in known]
    if name == "models":
        labels = [label if c.model in label else f"{c.model}, {label}" for c, label in zip(known, labels, strict=True)]
    # Trials of one architecture need colours of their own to be told apart.
    by_model, is_each = colours_of(report.models), len({c.model for c in known}) == len(known)
    figures = []
    for id, title, unit, solid, dotted in _CURVES:
        traces = []
        for place, (candidate, label) in enumerate(zip(known, labels, strict=True)):
            wins = winner is not None and candidate.name == winner.name
            colour = by_model[candidate.model] if is_each else line_colour(place)
            shown = safe(f"★ winner, {label}" if wins else label)
            for metric, dash, width in ((solid, "solid", 4.5 if wins else 2), (dotted, "dot", 1.5)):
                if metric is not None:
                    line = {"color": colour, "dash": dash, "width": width}
                    style = {"line": line, "legendgroup": str(place), "showlegend": metric == solid}
                    style |= {"meta": report.places[candidate.name], "opacity": 1 if wins else 0.8}
                    traces.append(_line(report, candidate, metric, name=shown, **style))
            if wins:
                traces.append(_best_epoch(report, candidate, solid))
        words = f"Over the epochs: {'validation solid, training dotted' if dotted else 'train_acc minus val_acc'}."
        if any(winner is not None and c.name == winner.name for c in known):
            words += " The star is the winner's best epoch."
        if not known:
            words = "The curves of these trials are unknown on this host."
        axes = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": unit}}}
        figures.append(Figure(f"curves-{name}-{id}", title, words, figure_json(traces, height=420, **axes)))
    return figures


def _line(report: Report, candidate: Candidate, metric: str, *, name: str, **style: Any) -> Any:
    curve, factor = report.curves[candidate.name], _factor(metric)
    values = [row.get(metric) for row in curve]
    swept = next(sweep.axes for sweep in report.sweeps if sweep.id == candidate.sweep)
    parameters = candidate.record.parameters
    config = [safe(f"{a.name} {short(parameters[a.name])}") for a in swept if a.name in parameters]
    return go.Scatter(
        x=[row["epoch"] for row in curve],
        y=[None if v is None or not math.isfinite(v) else float(f"{factor * v:.5g}") for v in values],
        name=name,
        mode="lines" if len(curve) > 1 else "markers",
        hovertemplate="<br>".join([name, f"{metric} %{{y:.4g}}, epoch %{{x}}", *config]) + "<extra></extra>",
        **style,
    )


def _best_epoch(report: Report, winner: Candidate, metric: str) -> Any:
    rows = [row for row in report.curves[winner.name] if row["epoch"] == winner.result.best_epoch]
    values = [value for row in rows if (value := row.get(metric)) is not None and math.isfinite(value)]
    return go.Scatter(
        x=[row["epoch"] for row in rows][: len(values)],
        y=[_factor(metric) * value for value in values],
        mode="markers",
        marker=STAR_MARKER,
        name="winner",
        showlegend=False,
        hovertemplate=f"winner, best epoch {winner.result.best_epoch}<extra></extra>",
        meta=report.places[winner.name],
    )


def _factor(metric: str) -> int:
    return 1 if metric.endswith("loss") else 100
