"""What a notebook's cell shows of sweeps: the winner, the ranking and two small figures; or one figure of Plotly's."""

from collections import Counter
from typing import Any

import plotly.graph_objects as go

from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.formatting import plain
from fer_sweep.notebook.svg import drawn, legend
from fer_sweep.reports.curves import curves
from fer_sweep.reports.figures import figures_of, pareto
from fer_sweep.reports.page import views
from fer_sweep.reports.sources import Report, best_trials, title
from fer_sweep.reports.summary import answer, certainty
from fer_sweep.reports.tables import ranking, templates_of_reports
from fer_sweep.selection import SHOWN

RANKED = 10
"""Trials in the table; the winner is one of them."""
KINDS = ("pareto", "accuracy", "loss", "gap", "progress", "importance", "confusion", "recall", "parallel")
"""The figures that every sweep has once its trials suffice."""


def cell(report: Report, state: str = "") -> str:
    """The HTML: some kB, without scripts. ``state`` is the sweep's, if it is one."""
    selection = report.selection
    shown = []
    if selection.ranking:
        accuracy = curves(report, best_trials(selection), "best")[0]
        shown = [figure for figure in (pareto(report), accuracy) if figure.spec]
    columns, ranked = ranking(selection, report.label)
    return (
        templates_of_reports(autoescape=True)
        .get_template("cell.html.j2")
        .render(
            report=report,
            title=title(report.sweeps),
            state=state,
            states=Counter(str(record.state) for _, record in report.trials).most_common(),
            answer=answer(report),
            caveats=certainty(report, most=SHOWN).get("Caveats", ()),
            columns=columns,
            ranking=[row for place, row in enumerate(ranked) if place < RANKED or ">" in str(row[0])],
            figures=[(figure, drawn(figure), legend(figure)) for figure in shown],
        )
    )


def plotted(report: Report, kind: str) -> Any:
    """One of the figures of a report of one sweep, as Plotly's.

    Raises:
        InputError: There is no such figure.
        NothingToDo: The trials do not suffice for it yet.
    """
    (sweep,) = report.sweeps
    found = {
        figure.id.removeprefix("curves-").removeprefix("best-").removesuffix(f"-{sweep.id}"): figure
        for some in figures_of(report).values()
        for figure in some
    }
    if kind not in {*KINDS, *found}:
        raise InputError(f"no figure {kind!r}", hint=f"one of {', '.join(dict.fromkeys([*KINDS, *found]))}")
    if kind == "parallel" and (shown := views(report)):
        return _parallel(shown[0]["figure"], sweep.label)
    if kind not in found or not found[kind].spec:
        why = found[kind].summary if kind in found else f"{plain(report.selection.reason, 300)}."
        raise NothingToDo(f"no figure {kind!r} of sweep {sweep.id} yet: {why}", hint="train some more: sweep.agent()")
    figure = found[kind]
    return go.Figure(figure.spec).update_layout(template="plotly_white", title=plain(figure.title, 80))


def _parallel(spec: dict[str, Any], label: str) -> Any:
    """Parallel coordinates, coloured by the accuracy, which is the last axis but one."""
    drawn = go.Figure(spec).update_layout(template="plotly_white", title={"text": plain(label, 80), "y": 0.98})
    trace = drawn.data[0]
    trace.line.color = trace.dimensions[-2]["values"]
    return drawn
