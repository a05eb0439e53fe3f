"""The figures of the HTML report: trials, progress, importances, classes; curves are in ``curves``. Pure.

Optuna's visualizations do not replace them: they know no standard error, winner or epochs spent, and escape no label.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import Any

import plotly.graph_objects as go

from fer_sweep.formatting import percent, plain, points
from fer_sweep.records import TrialState
from fer_sweep.reports.curves import curves
from fer_sweep.reports.optuna_view import Importance, importance
from fer_sweep.reports.plot import BAND, QUIET, SHADES, STAR_MARKER, Figure, colours_of, figure_json, line_colour, safe
from fer_sweep.reports.sources import Report, ReportedSweep, best_of_each_model, best_trials
from fer_sweep.selection import Candidate

_SYMBOLS = {
    TrialState.COMPLETE: "circle",
    TrialState.PRUNED: "x-thin-open",
    TrialState.PAUSED: "diamond-open",
    TrialState.RUNNING: "triangle-up-open",
}
_ACCURACY_AXIS = "best validation accuracy, %"
_DASHES = ("solid", "dash", "dot", "dashdot")
"""Tell sweeps of one architecture apart."""


def figures_of(report: Report) -> dict[str, list[Figure]]:
    """The figures by section; empty if no trial has a result yet."""
    selection, winner = report.selection, report.selection.winner
    if not selection.ranking:
        return {}
    models = best_of_each_model(report.choice)
    bars, colours = [], colours_of(report.models)
    for sweep in report.sweeps:
        accuracy = importance(sweep.records, sweep.axes, lambda result: result.best_val_acc, maximize=True)
        gap = importance(sweep.records, sweep.axes, lambda result: result.train_val_gap, maximize=False)
        title = report.names[sweep.id] if len(report.sweeps) > 1 else "Parameter importance"
        bars.append(importance_bars(sweep, accuracy, gap, title, _colour(sweep, colours)))
    return {
        "pareto": [pareto(report)],
        "best": curves(report, best_trials(selection), "best"),
        "models": curves(report, models, "models") if len(models) > 1 else [],
        "importance": bars,
        "winner-classes": [] if winner is None else [confusion(winner), recall(winner, colours[winner.model])],
        "progress": [progress(report)],
    }


def pareto(report: Report) -> Figure:
    """Gap against accuracy: every trial with a result, the Pareto front, the winner, the one-standard-error band."""
    selection, winner = report.selection, report.selection.winner
    trained = [c for c in selection.ranking if c.result.best_epoch > 0]
    front = {"color": QUIET, "width": 2, "dash": "dash"}
    traces = [_dots(report, selection.pareto, name="Pareto front", line=front, mode="lines")]
    colours = colours_of(report.models)
    for model in dict.fromkeys(c.model for c in selection.ranking):
        for state in _SYMBOLS:
            some = [c for c in trained if c.model == model and c.record.state is state]
            if some:
                name = safe(model) if state is TrialState.COMPLETE else f"{safe(model)}, {state}"
                marker = _marker(state, colours[model], len(trained))
                traces.append(_dots(report, some, name=name, marker=marker, opacity=0.75))
    if winner is not None:
        traces.append(_dots(report, [winner], name="winner", marker=STAR_MARKER))
    x = _range([c.result.best_val_acc for c in trained], high_is_good=True)
    y = _range([c.result.train_val_gap for c in trained], high_is_good=False)
    axes = {
        "xaxis": {"title": {"text": _ACCURACY_AXIS}, "range": x},
        "yaxis": {"title": {"text": "train-val gap, points"}, "range": y},
    }
    drawn = figure_json(traces, height=440, **axes, **_band(report))
    words = f"{len(trained):,} trials, the best at the lower right; {len(selection.pareto)} on the Pareto front."
    if winner is None:
        words += f" No winner: {report.named(plain(selection.reason, 600))}."
    else:
        words += (
            f" The winner, {report.label(winner.name)}, has {percent(winner.result.best_val_acc)} and a gap of "
            f"{points(winner.result.train_val_gap)} points: {report.named(plain(selection.reason, 600))}."
        )
    body = tuple(
        (report.label(c.name), percent(c.result.best_val_acc), f"{points(c.result.train_val_gap)} points")
        for c in selection.pareto
    )
    return Figure("pareto", "Accuracy against gap", words, drawn, ("trial", "accuracy", "gap"), body)


def progress(report: Report) -> Figure:
    """Each sweep's best accuracy so far, over the epochs it has trained."""
    traces, words = [], []
    several, winner = len(report.sweeps) > 1, report.selection.winner
    colours, used = colours_of(report.models), Counter[str]()
    star: list[_Point] = []
    hover = "%{text}<br>%{y:.2f} %, %{x} epochs trained<extra></extra>"
    for place, sweep in enumerate(report.sweeps):
        colour = _colour(sweep, colours)
        dash = _DASHES[used[colour] % len(_DASHES)]
        used[colour] += 1
        spent, best = 0, 0.0
        so_far: list[_Point] = []
        ended: dict[TrialState, list[_Point]] = {}
        for record in sorted(sweep.records, key=lambda r: r.ended_at or r.started_at or math.inf):
            if record.result is None:
                continue
            spent += record.result.epochs
            accuracy = 100 * record.result.best_val_acc
            best = max(best, accuracy)
            trial = f"{sweep.id}/{record.trial_id}"
            so_far.append((trial, spent, best))
            ended.setdefault(record.state, []).append((trial, spent, accuracy))
            if winner is not None and trial == winner.name:
                star = [ended[record.state][-1]]
        style = {"legendgroup": str(place), "hovertemplate": hover}
        name = safe(report.names[sweep.id], 40) if several else "best so far"
        stairs = {"color": colour, "width": 2.5, "shape": "hv", "dash": dash}
        traces.append(_trials(report, so_far, name=name, mode="lines", line=stairs, **style))
        for state, some in ended.items():
            marker = _marker(state, colour, len(so_far))
            shown = f"{name}, {state}" if several else str(state)
            look = {"mode": "markers", "marker": marker, "opacity": 0.6, "showlegend": not several}
            traces.append(_trials(report, some, name=shown, **look, **style))
        words.append(
            f"{report.names[sweep.id]}: {best:.2f} % after {spent:,} epochs in {len(so_far):,} trials, "
            f"{len(ended.get(TrialState.PRUNED, [])):,} of them pruned."
        )
    if star:
        traces.append(_trials(report, star, name="winner", mode="markers", marker=STAR_MARKER, hovertemplate=hover))
    accuracies = [c.result.best_val_acc for c in report.selection.ranking]
    axes = {
        "xaxis": {"title": {"text": "epochs trained"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": _ACCURACY_AXIS}, "range": _range(accuracies, high_is_good=True)},
    }
    if several:
        words.append("Circles are complete trials, crosses pruned ones.")
    return Figure("progress", "Optimization history", " ".join(words), figure_json(traces, height=400, **axes))


def importance_bars(sweep: ReportedSweep, accuracy: Importance, gap: Importance, title: str, colour: str) -> Figure:
    """How much each parameter of a sweep mattered for accuracy, in its colour, and for the gap."""
    names = list(accuracy.shares or gap.shares)
    traces, words = [], []
    if not names and accuracy.missing == gap.missing:
        return Figure(f"importance-{sweep.id}", title, f"No importance: {accuracy.missing}.", {})
    for what, answer, fill in (("accuracy", accuracy, colour), ("gap", gap, QUIET)):
        if not answer.shares:
            words.append(f"No importance for {what}: {answer.missing}.")
            continue
        first, share = max(answer.shares.items(), key=lambda item: item[1])
        words.append(f"For {what}, {plain(first, 30)} mattered most ({percent(share, 0)}).")
        bar = go.Bar(
            name=f"for {what}",
            orientation="h",
            y=[safe(name, 30) for name in reversed(names)],
            x=[round(100 * answer.shares.get(name, 0.0), 1) for name in reversed(names)],
            marker={"color": fill},
            hovertemplate="%{y}: %{x} %<extra>for " + what + "</extra>",
        )
        traces.append(bar)
    axes = {"xaxis": {"title": {"text": "share, %"}}, "yaxis": {"automargin": True}}
    drawn = figure_json(traces, height=120 + 34 * len(names), barmode="group", **axes)
    body = tuple((plain(n, 40), *(percent(a.shares.get(n), 1) for a in (accuracy, gap))) for n in names)
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
        colorscale=list(SHADES),
        zmin=0,
        zmax=100,
        showscale=False,
        xgap=2,
        ygap=2,
    )
    axes = {"xaxis": {"title": {"text": "predicted"}}, "yaxis": {"title": {"text": "true"}, "autorange": "reversed"}}
    drawn = figure_json([trace], height=430, **axes)
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    share, true, predicted = max((shares[i][j], names[i], names[j]) for i, j in pairs)
    words = f"In percent of each true class. Most often mistaken: {true} for {predicted}, {share:.0f} %."
    body = tuple((name, *map(str, row)) for name, row in zip(names, counts, strict=True))
    return Figure("confusion", "Confusion matrix", words, drawn, ("true \\ predicted", *names), body)


def recall(winner: Candidate, colour: str) -> Figure:
    """The winner's recall by class."""
    images = [sum(row) for row in winner.result.confusion_matrix]
    classes = zip(winner.result.classes, winner.result.per_class_recall, images, strict=True)
    worst_first = sorted(classes, key=lambda one: one[1])
    trace = go.Bar(
        orientation="h",
        y=[name for name, _, _ in worst_first],
        x=[round(100 * share, 1) for _, share, _ in worst_first],
        text=[percent(share, 0) for _, share, _ in worst_first],
        textposition="outside",
        cliponaxis=False,
        customdata=[count for _, _, count in worst_first],
        hovertemplate="%{y}: %{x} % of %{customdata} images<extra></extra>",
        marker={"color": colour},
    )
    drawn = figure_json([trace], height=430, xaxis={"title": {"text": "recall, %"}, "range": [0, 110]})
    (worst, low, _), (best, high, _) = worst_first[0], worst_first[-1]
    words = (
        f"Best on {best} ({percent(high, 0)}), worst on {worst} ({percent(low, 0)}); "
        f"macro F1 {winner.result.macro_f1:.3f}."
    )
    body = tuple((name, percent(share, 1), str(count)) for name, share, count in reversed(worst_first))
    return Figure("recall", "Recall by class", words, drawn, ("class", "recall", "images"), body)


_Point = tuple[str, float, float]
"""SWEEP/TRIAL, and where it is drawn."""


def _trials(report: Report, points: Sequence[_Point], **style: Any) -> Any:
    """Trials as points; the page finds the row of each in ``customdata``."""
    return go.Scatter(
        x=[round(x, 3) for _, x, _ in points],
        y=[round(y, 3) for _, _, y in points],
        text=[safe(report.label(trial)) for trial, _, _ in points],
        customdata=[report.places[trial] for trial, _, _ in points],
        **style,
    )


def _dots(report: Report, chosen: Sequence[Candidate], *, mode: str = "markers", **style: Any) -> Any:
    points = [(c.name, 100 * c.result.best_val_acc, 100 * c.result.train_val_gap) for c in chosen]
    hover = "%{text}<br>accuracy %{x:.2f} %<br>gap %{y:+.1f} points<extra></extra>"
    return _trials(report, points, mode=mode, hovertemplate=hover, **style)


def _colour(sweep: ReportedSweep, colours: Mapping[str, str]) -> str:
    """That of its architecture; one of its own if it has several."""
    return colours[sweep.models[0]] if len(sweep.models) == 1 else line_colour(5)


def _marker(state: TrialState, colour: str, among: int) -> dict[str, Any]:
    symbol = _SYMBOLS.get(state, "circle-open")
    size = 8 if among < 300 else 5
    return {"symbol": symbol, "size": size, "color": colour, "line": {"width": 0 if symbol == "circle" else 1.5}}


def _band(report: Report) -> dict[str, Any]:
    near, error = report.selection.near, 100 * report.selection.standard_error
    if not near or not error:
        return {}
    high = 100 * near[0].result.best_val_acc
    box = {"type": "rect", "x0": high - error, "x1": high, "yref": "paper", "y0": 0, "y1": 1}
    note = {"x": high - error, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "top", "showarrow": False}
    return {
        "shapes": [box | {"layer": "below", "fillcolor": BAND, "opacity": 0.22, "line": {"width": 0}}],
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
