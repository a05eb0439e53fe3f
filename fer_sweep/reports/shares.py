"""Figures of shares: how much parameters mattered, what the winner takes for what. Pure."""

import plotly.graph_objects as go

from fer_sweep.reports import palette
from fer_sweep.reports.importance import Importance
from fer_sweep.reports.plot import Figure, figure_json, in_percent, safe
from fer_sweep.reports.shown import plain
from fer_sweep.reports.sources import ReportedSweep
from fer_sweep.selection import Candidate


def importances(sweep: ReportedSweep, accuracy: Importance, gap: Importance, *, several: bool) -> Figure:
    """Bars of how much each parameter of a sweep mattered for accuracy and for gap.

    Args:
        sweep: The sweep.
        accuracy: What mattered for it.
        gap: Likewise.
        several: Whether there are figures of other sweeps beside this one.
    """
    names = list(accuracy.shares or gap.shares)
    found = [("accuracy", accuracy, palette.line(0)), ("gap", gap, palette.line(1))]
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
    """The winner's confusion matrix: shares of each true class."""
    counts, names = winner.result.confusion_matrix, winner.result.classes
    shares = [[100 * n / sum(row) if sum(row) else 0.0 for n in row] for row in counts]
    trace = go.Heatmap(
        z=[[round(share, 1) for share in row] for row in shares],
        x=list(names),
        y=list(names),
        text=[[f"{share:.0f}" for share in row] for row in shares],
        texttemplate="%{text}",
        customdata=[list(row) for row in counts],
        hovertemplate="%{y} taken for %{x}: %{z} % (%{customdata} images)<extra></extra>",
        colorscale=palette.scale(palette.SHADES),
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
    """How many of each class the winner finds."""
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
        marker={"color": palette.line(0)},
    )
    drawn = figure_json([trace], height=430, xaxis={"title": {"text": "recall, %"}, "range": [0, 110]})
    words = (
        f"Best on {names[order[-1]]} ({in_percent(values[order[-1]], 0)}), worst on {names[order[0]]} "
        f"({in_percent(values[order[0]], 0)}); macro F1 {winner.result.macro_f1:.3f}."
    )
    body = tuple((names[i], in_percent(values[i], 1), str(images[i])) for i in reversed(order))
    return Figure("recall", "Recall by class", words, drawn, ("class", "recall", "images"), body)


def _importance_words(what: str, answer: Importance) -> str:
    if not answer.shares:
        return f"No importance for {what}: {answer.missing}."
    first = max(answer.shares, key=answer.shares.__getitem__)
    return f"For {what}, {plain(first, 30)} mattered most ({in_percent(answer.shares[first], 0)})."
