"""The figures of the HTML report: trials, curves, progress, importances, classes. Pure."""

import math
from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import Any

import plotly.graph_objects as go

from fer_sweep.records import TrialRecord
from fer_sweep.reports.optuna_view import Importance
from fer_sweep.reports.plot import (
    BAND,
    QUIET,
    SHADES,
    STAR,
    Figure,
    colour_scale,
    figure_json,
    in_percent,
    in_points,
    line_colour,
    safe,
)
from fer_sweep.reports.shown import plain
from fer_sweep.reports.sources import Report, ReportedSweep, TrialKey
from fer_sweep.reports.tables import label_of
from fer_sweep.selection import Candidate

_SYMBOLS = {"complete": "circle", "pruned": "x-thin-open", "running": "triangle-up-open"}
_CURVES = (
    ("accuracy", "Accuracy", "accuracy, %", (("val_acc", "solid"), ("train_acc", "dot")), 100),
    ("loss", "Loss", "loss", (("val_loss", "solid"), ("train_loss", "dot")), 1),
    ("gap", "Train-val gap", "train-val gap, points", (("train_val_gap", "solid"),), 100),
)
_MANY = 300
"""Number of dots above which they are drawn smaller."""
_ACCURACY_AXIS = "best validation accuracy, %"


def pareto(report: Report, rows: Mapping[TrialKey, int]) -> Figure:
    """Gap against accuracy: every trial, the Pareto front, the winner, the one-standard-error band.

    Args:
        report: With at least one trial that has a result.
        rows: The row of every trial in the page's table.
    """
    selection = report.selection
    trained = [c for c in selection.ranking if c.result.best_epoch > 0]
    front = {"color": QUIET[0], "width": 2, "dash": "dash"}
    traces = [_dots(report, selection.pareto, rows, name="Pareto front", line=front, mode="lines")]
    for place, model in enumerate(dict.fromkeys(_model(c) for c in selection.ranking)):
        for state in _SYMBOLS:
            some = [c for c in trained if _model(c) == model and c.record.state == state]
            if some:
                marker = _marker(state, line_colour(place), len(trained))
                name = safe(model) if state == "complete" else f"{safe(model)}, {state}"
                traces.append(_dots(report, some, rows, name=name, marker=marker, opacity=0.75))
    if selection.winner is not None:
        star = {"symbol": "star", "size": 18, "color": STAR[0]}
        traces.append(_dots(report, [selection.winner], rows, name="winner", marker=star))
    drawn = figure_json(
        traces,
        height=440,
        xaxis={
            "title": {"text": _ACCURACY_AXIS},
            "range": _range([c.result.best_val_acc for c in trained], high_is_good=True),
        },
        yaxis={
            "title": {"text": "train-val gap, points"},
            "range": _range([c.result.train_val_gap for c in trained], high_is_good=False),
        },
        **_band(report),
    )
    body = tuple(
        (
            plain(f"{c.sweep}/{c.record.trial_id}", 60),
            in_percent(c.result.best_val_acc),
            in_points(c.result.train_val_gap),
        )
        for c in selection.pareto
    )
    words = _pareto_words(report, len(trained))
    return Figure("pareto", "Accuracy against gap", words, drawn, ("trial", "accuracy", "gap"), body)


def curves(report: Report, chosen: Sequence[Candidate], name: str) -> list[Figure]:
    """Accuracy, loss and gap over the epochs of some trials.

    Args:
        report: With the curves.
        chosen: The trials, best first.
        name: Prefix of the figures' ids; ``models`` puts the architecture before the trial.
    """
    known = [c for c in chosen if (c.sweep, c.record.trial_id) in report.curves]
    labels = [f"{safe(_model(c), 20)}, {_label(report, c)}" if name == "models" else _label(report, c) for c in known]
    figures = []
    for metric, title, unit, lines, factor in _CURVES:
        traces = []
        for place, (candidate, label) in enumerate(zip(known, labels, strict=True)):
            curve = report.curves[candidate.sweep, candidate.record.trial_id]
            for of, dash in lines:
                style = {"color": line_colour(place), "dash": dash, "width": 2.5 if dash == "solid" else 1.5}
                traces.append(
                    go.Scatter(
                        x=[row["epoch"] for row in curve],
                        y=[_scaled(row.get(of), factor) for row in curve],
                        name=label,
                        legendgroup=str(place),
                        showlegend=dash == "solid",
                        mode="lines" if len(curve) > 1 else "markers",
                        line=style,
                        hovertemplate=f"{label}<br>{of} %{{y:.4g}}, epoch %{{x}}<extra></extra>",
                    )
                )
        axes = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": unit}}}
        words = _curve_words(metric, labels)
        figures.append(Figure(f"curves-{name}-{metric}", title, words, figure_json(traces, height=420, **axes)))
    return figures


def progress(report: Report, rows: Mapping[TrialKey, int]) -> Figure:
    """Each sweep's best accuracy so far, over the epochs it has trained.

    Args:
        report: With at least one trial that has a result.
        rows: The row of every trial in the page's table.
    """
    traces, words = [], []
    several = len(report.sweeps) > 1
    for place, sweep in enumerate(report.sweeps):
        spent, best = 0, 0.0
        so_far: list[_Point] = []
        ended: dict[str, list[_Point]] = {}
        for record in sorted((r for r in sweep.records if r.result is not None), key=_ended):
            assert record.result is not None
            spent += record.result.epochs
            accuracy = 100 * record.result.best_val_acc
            best = max(best, accuracy)
            label, row = safe(label_of(sweep, record, several=several)), rows[sweep.id, record.trial_id]
            so_far.append((spent, round(best, 3), label, row))
            ended.setdefault(str(record.state), []).append((spent, round(accuracy, 3), label, row))
        colour = line_colour(place)
        name = safe(sweep.label, 40) if several else "best so far"
        stairs = {"color": colour, "width": 2.5, "shape": "hv"}
        traces.append(_series(so_far, name=name, mode="lines", line=stairs, legendgroup=str(place)))
        for state, points in ended.items():
            marker = _marker(state, colour, len(so_far))
            shown = f"{name}, {state}" if several else state
            style = {"mode": "markers", "marker": marker, "opacity": 0.6, "legendgroup": str(place)}
            traces.append(_series(points, name=shown, **style))
        words.append(_progress_words(sweep, best, spent, len(so_far), len(ended.get("pruned", []))))
    accuracies = [c.result.best_val_acc for c in report.selection.ranking]
    axes = {
        "xaxis": {"title": {"text": "epochs trained"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": _ACCURACY_AXIS}, "range": _range(accuracies, high_is_good=True)},
    }
    return Figure("progress", "The search's progress", " ".join(words), figure_json(traces, height=400, **axes))


def importances(sweep: ReportedSweep, accuracy: Importance, gap: Importance, *, several: bool) -> Figure:
    """How much each parameter of a sweep mattered, for accuracy and for gap.

    Args:
        sweep: The sweep.
        accuracy: The importances for accuracy.
        gap: The importances for the gap.
        several: Whether the report shows several sweeps.
    """
    names = list(accuracy.shares or gap.shares)
    found = [("accuracy", accuracy, line_colour(0)), ("gap", gap, line_colour(1))]
    traces = [
        go.Bar(
            name=f"for {what}",
            orientation="h",
            y=[safe(name, 30) for name in reversed(names)],
            x=[round(100 * answer.shares.get(name, 0.0), 1) for name in reversed(names)],
            marker={"color": colour},
            hovertemplate="%{y}: %{x} %<extra>for " + what + "</extra>",
        )
        for what, answer, colour in found
        if answer.shares
    ]
    height = 120 + 34 * len(names)
    drawn = figure_json(
        traces, height=height, xaxis={"title": {"text": "share, %"}}, yaxis={"automargin": True}, barmode="group"
    )
    words = [_importance_words(what, answer) for what, answer, _ in found]
    body = tuple(
        (plain(n, 40), *(in_percent(a.shares[n], 1) if n in a.shares else "" for _, a, _ in found)) for n in names
    )
    title = plain(sweep.label, 80) if several else "Parameter importance"
    heading = ("parameter", "for accuracy", "for gap")
    return Figure(f"importance-{sweep.id}", title, " ".join(words), drawn if names else {}, heading, body)


def confusion(winner: Candidate) -> Figure:
    """The winner's confusion matrix, in percent of each true class."""
    counts, names = winner.result.confusion_matrix, winner.result.classes
    shares = [[100 * n / sum(row) if sum(row) else 0.0 for n in row] for row in counts]
    trace = go.Heatmap(
        z=[[round(share, 1) for share in row] for row in shares],
        x=list(names),
        y=list(names),
        text=[[f"{share:.0f}" for share in row] for row in shares],
        texttemplate="%{text}",
        customdata=[list(row) for row in counts],
        hovertemplate="%{y} predicted as %{x}: %{z} % (%{customdata} images)<extra></extra>",
        colorscale=colour_scale(SHADES),
        zmin=0,
        zmax=100,
        showscale=False,
        xgap=2,
        ygap=2,
    )
    axes = {"xaxis": {"title": {"text": "predicted"}}, "yaxis": {"title": {"text": "true"}, "autorange": "reversed"}}
    drawn = figure_json([trace], height=430, **axes)
    wrong = max(
        ((shares[i][j], names[i], names[j]) for i in range(len(names)) for j in range(len(names)) if i != j),
    )
    words = f"In percent of each true class. Most often mistaken: {wrong[1]} for {wrong[2]}, {wrong[0]:.0f} %."
    body = tuple((names[i], *(str(n) for n in row)) for i, row in enumerate(counts))
    return Figure("confusion", "Confusion matrix", words, drawn, ("true \\ predicted", *names), body)


def recall(winner: Candidate) -> Figure:
    """The winner's recall by class."""
    values, names = winner.result.per_class_recall, winner.result.classes
    images = [sum(row) for row in winner.result.confusion_matrix]
    order = sorted(range(len(names)), key=lambda i: values[i])
    trace = go.Bar(
        orientation="h",
        y=[names[i] for i in order],
        x=[round(100 * values[i], 1) for i in order],
        text=[in_percent(values[i], 0) for i in order],
        textposition="outside",
        cliponaxis=False,
        customdata=[images[i] for i in order],
        hovertemplate="%{y}: %{x} % of %{customdata} images<extra></extra>",
        marker={"color": line_colour(0)},
    )
    drawn = figure_json([trace], height=430, xaxis={"title": {"text": "recall, %"}, "range": [0, 110]})
    words = (
        f"Best on {names[order[-1]]} ({in_percent(values[order[-1]], 0)}), worst on {names[order[0]]} "
        f"({in_percent(values[order[0]], 0)}); macro F1 {winner.result.macro_f1:.3f}."
    )
    body = tuple((names[i], in_percent(values[i], 1), str(images[i])) for i in reversed(order))
    return Figure("recall", "Recall by class", words, drawn, ("class", "recall", "images"), body)


_Point = tuple[int, float, str, int]
"""Epochs trained, accuracy in percent, the trial's label and its row in the table."""


def _dots(report: Report, chosen: Sequence[Candidate], rows: Mapping[TrialKey, int], **style: Any) -> Any:
    return go.Scatter(
        **{"mode": "markers", **style},
        x=[round(100 * c.result.best_val_acc, 3) for c in chosen],
        y=[round(100 * c.result.train_val_gap, 3) for c in chosen],
        customdata=[rows[c.sweep, c.record.trial_id] for c in chosen],
        text=[_label(report, c) for c in chosen],
        hovertemplate="%{text}<br>accuracy %{x:.2f} %<br>gap %{y:+.1f} points<extra></extra>",
    )


def _series(points: Sequence[_Point], **style: Any) -> Any:
    return go.Scatter(
        x=[point[0] for point in points],
        y=[point[1] for point in points],
        text=[point[2] for point in points],
        customdata=[point[3] for point in points],
        hovertemplate="%{text}<br>%{y:.2f} %, %{x} epochs trained<extra></extra>",
        **style,
    )


def _marker(state: str, colour: str, among: int) -> dict[str, Any]:
    size = 8 if among < _MANY else 5
    symbol = _SYMBOLS.get(state, "circle-open")
    return {"symbol": symbol, "size": size, "color": colour, "line": {"width": 0 if symbol == "circle" else 1.5}}


def _band(report: Report) -> dict[str, Any]:
    near, error = report.selection.near, 100 * report.selection.standard_error
    if not near or not error:
        return {}
    high = 100 * near[0].result.best_val_acc
    box = {"type": "rect", "x0": high - error, "x1": high, "yref": "paper", "y0": 0, "y1": 1}
    note = {"x": high - error, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "top", "showarrow": False}
    return {
        "shapes": [box | {"layer": "below", "fillcolor": BAND[0], "opacity": 0.22, "line": {"width": 0}}],
        "annotations": [note | {"text": "one standard<br>error", "align": "right"}],
    }


def _range(shares: Sequence[float], *, high_is_good: bool) -> list[float] | None:
    """An axis range in percent that covers most points: one collapsed trial must not compress all others."""
    if len(shares) < 4:
        return None
    low, _, high = quantiles(shares, n=4)
    spread = 3 * (high - low)
    start = max(min(shares), low - spread) if high_is_good else min(shares)
    end = max(shares) if high_is_good else min(max(shares), high + spread)
    pad = 0.06 * (end - start) or 0.01
    return [round(100 * (start - pad), 2), round(100 * (end + pad), 2)]


def _scaled(value: float | None, factor: int) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{factor * value:.5g}")


def _ended(record: TrialRecord) -> float:
    return record.ended_at or record.started_at or math.inf


def _model(candidate: Candidate) -> str:
    return str(candidate.record.config.get("model", ""))


def _label(report: Report, candidate: Candidate) -> str:
    return safe(_name(report, candidate))


def _name(report: Report, candidate: Candidate) -> str:
    sweep = next(s for s in report.sweeps if s.id == candidate.sweep)
    return label_of(sweep, candidate.record, several=len(report.sweeps) > 1)


def _curve_words(metric: str, labels: Sequence[str]) -> str:
    if not labels:
        return "The curves of these trials are unknown on this host."
    what = "train_acc minus val_acc" if metric == "gap" else "validation solid, training dotted"
    return f"Over the epochs: {what}."


def _pareto_words(report: Report, trained: int) -> str:
    front = len(report.selection.pareto)
    words = f"{trained:,} trials, the best at the lower right; {front} on the Pareto front."
    winner = report.selection.winner
    if winner is None:
        return f"{words} No winner: {plain(report.selection.reason, 600)}."
    result = winner.result
    return (
        f"{words} The winner, {_name(report, winner)}, has {in_percent(result.best_val_acc)} and a gap of "
        f"{in_points(result.train_val_gap)}: {plain(report.selection.reason, 600)}."
    )


def _progress_words(sweep: ReportedSweep, best: float, spent: int, trials: int, pruned: int) -> str:
    label = plain(sweep.label, 80)
    return f"{label}: {best:.2f} % after {spent:,} epochs in {trials:,} trials, {pruned:,} of them pruned."


def _importance_words(what: str, answer: Importance) -> str:
    if not answer.shares:
        return f"No importance for {what}: {answer.missing}."
    first = max(answer.shares, key=answer.shares.__getitem__)
    return f"For {what}, {plain(first, 30)} mattered most ({in_percent(answer.shares[first], 0)})."
