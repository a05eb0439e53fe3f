"""What the W&B report and workspace of sweeps show: their texts and panels, as objects of ``wandb-workspaces``.

This module makes no request. Names in sweep files are untrusted: they only become text nodes and labels, which W&B
shows as they are, never Markdown, LaTeX, HTML or a link.

The library is optional; ``wandb_views`` imports this module once it knows that the library is installed.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from fer_sweep.formatting import plain
from fer_sweep.reports.sources import MEASURED, Axis, Report, ShownSweep, common_axes, title
from fer_sweep.reports.summary import BY_ARCHITECTURE, answer, architectures, certainty
from fer_sweep.selection import RULE, SHOWN

RUNS_SHOWN = 20
"""Lines a plot draws for each metric: the runs with the best validation accuracy."""

ACCURACY, GAP = "best_val_acc", "train_val_gap"
_PINNED = ["run:displayName", f"summary:{ACCURACY}", f"summary:{GAP}"]
"""Columns of the table of runs."""
_MEANS = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}


def report(sweeps: Sequence[ShownSweep], gathered: Report) -> Any:
    """The report of at least one sweep, in the project of the first; it begins as all reports of ``gathered`` do."""
    first = sweeps[0]
    blocks: list[Any] = [*([wr.TableOfContents()] if len(sweeps) > 1 else []), *_answer(gathered)]
    blocks += _side_by_side(sweeps) if len(sweeps) > 1 else []
    for sweep in sweeps:
        blocks += [wr.H2(sweep.label if len(sweeps) > 1 else "Parameters, accuracy and gap"), *_one_sweep(sweep)]
    blocks += [
        wr.H2("Confusion matrix"),
        wr.P(
            "Counted on the validation split at the best epoch of the run that the rule below picked from a sweep when "
            "this was saved, or of all its runs while there was none to pick."
        ),
        wr.PanelGrid(runsets=[_winner(sweep) for sweep in sweeps], panels=[_sized(_confusion(), 24, 14)]),
        wr.H2("How accuracy and gap are measured"),
        wr.P(MEASURED),
        wr.H2("Which run to take"),
        wr.P(f"fersweep best applies the one-standard-error rule. {RULE}"),
        *_again(sweeps),
    ]
    return wr.Report(
        entity=first.entity,
        project=first.project,
        title=title(sweeps),
        description="Accuracy and train-val gap over the swept parameters. Saved by fersweep report --wandb.",
        blocks=blocks,
        width="fluid",
    )


def workspace(sweeps: Sequence[ShownSweep]) -> Any:
    """The workspace of at least one sweep, in the project of the first; it can show the runs of that project only."""
    first = sweeps[0]
    here = [sweep for sweep in sweeps if (sweep.entity, sweep.project) == (first.entity, first.project)]
    ids = [sweep.id for sweep in here]
    compared = _compared(here) if len(here) > 1 else []
    rows = (
        ("Swept parameters", 1, [_parallel(common_axes(here))]),
        ("Parameter importance", 2, _importance()),
        ("Accuracy against gap", len(compared) + 1, [*compared, _scatter()]),
        ("Over the epochs", 3, _curves(_grouping(here) if len(here) > 1 else None)),
        ("Run by run", 1, [wr.RunComparer(diff_only="split")]),
        ("Confusion matrix", 1, [_confusion()]),
    )
    # A workspace's name must not contain symbols and emoji.
    name = "".join(" " if unicodedata.category(c)[0] == "S" else c for c in title(sweeps))
    return ws.Workspace(
        entity=first.entity,
        project=first.project,
        name=" ".join(name.split()),
        sections=[
            ws.Section(
                name=name,
                panels=panels,
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=columns, rows=1),
                panel_settings=ws.SectionPanelSettings(x_axis="epoch"),
            )
            for name, columns, panels in rows
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=RUNS_SHOWN),
        runset_settings=ws.RunsetSettings(
            filters=f"Metric('Sweep') = {ids[0]!r}" if len(ids) == 1 else f"Metric('Sweep') in {ids!r}",
            order=[expr.Ordering(expr.Summary(ACCURACY), ascending=False)],
            pinned_columns=_PINNED,
        ),
    )


def _answer(gathered: Report) -> list[Any]:
    lists = {"Winner": [f"{name}: {plain(words, 600)}" for name, words in answer(gathered).items()]}
    for row in architectures(gathered):
        cells = zip(BY_ARCHITECTURE[1:], row.cells[1:], strict=True)
        numbers = ", ".join(f"{name} {cell}" for name, cell in cells if cell)
        line = f"{'★ ' if row.is_overall else ''}{row.cells[0]}: {plain(numbers, 600)}"
        lists.setdefault("By architecture", []).append(line)
    lists |= certainty(gathered, most=SHOWN)
    return [block for heading, items in lists.items() for block in (wr.H2(heading), wr.UnorderedList(items=items))]


def _side_by_side(sweeps: Sequence[ShownSweep]) -> list[Any]:
    shared = common_axes(sweeps)
    panels = [
        *(_sized(bars, 12, 8) for bars in _compared(sweeps)),
        *(_sized(curve, 8, 8) for curve in _curves(_grouping(sweeps))),
        _sized(_scatter(), 24, 10),
        _sized(_parallel(shared, "Parameters that all of these sweeps search"), 24, 12),
    ]
    return [
        wr.H2("Side by side"),
        wr.P("Lines are means over the runs of a sweep; the bands reach from the smallest value to the largest."),
        wr.PanelGrid(runsets=[_runset(sweep, shared) for sweep in sweeps], panels=panels),
    ]


def _one_sweep(sweep: ShownSweep) -> list[Any]:
    accuracy, loss, gap = _curves(None)
    panels = [
        _sized(_parallel(sweep.axes), 24, 12),
        *(_sized(panel, 12, 9) for panel in (*_importance(), _scatter(), gap, accuracy, loss)),
        _sized(wr.RunComparer(diff_only="split"), 24, 12),
    ]
    return [
        wr.P(_about(sweep)),
        wr.P(
            "A line through the axes is a run: its parameters, then what came of them. Below: which parameters matter "
            f"for accuracy and gap; gap against accuracy; the curves of the {RUNS_SHOWN} most accurate runs."
        ),
        wr.PanelGrid(runsets=[_runset(sweep, sweep.axes)], panels=panels),
    ]


def _about(sweep: ShownSweep) -> list[Any]:
    said = plain(sweep.description, 300)
    swept = ", ".join(f"{axis.name} (log)" if axis.log else axis.name for axis in sweep.axes) or "nothing"
    return [
        f"{said}. " if said and said[-1] not in ".!?…" else f"{said} ".lstrip(),
        wr.Link(f"Sweep {sweep.id}", url=sweep.url),
        f" in {sweep.entity}/{sweep.project} trains {' and '.join(sweep.models)} by method {sweep.method}; it had "
        f"{sweep.runs} {'run' if sweep.runs == 1 else 'runs'} when this was saved. It searches {swept}.",
    ]


def _again(sweeps: Sequence[ShownSweep]) -> list[Any]:
    lines, files = [], []
    for sweep in sweeps:
        lines += [f"# {', '.join(sweep.models)}: the file below, saved as {sweep.file_name}"]
        lines += [sweep.create, "fersweep agent", ""]
        files.append(wr.H3(sweep.file_name, collapsed_blocks=[wr.CodeBlock(sweep.file, language="yaml")]))
    lines += ["# the winner", f"fersweep best {' '.join(s.argument for s in sweeps)}"]
    # W&B does not highlight shell code.
    return [wr.H2("Reproduce"), wr.CodeBlock("\n".join(lines), language="python"), *files]


def _parallel(axes: Sequence[Axis], heading: str = "Swept parameters, accuracy and gap") -> Any:
    column = wr.ParallelCoordinatesPlotColumn
    swept = [column(wr.Config(axis.name), display_name=axis.name, log=axis.log) for axis in axes]
    results = [column(wr.SummaryMetric(name), display_name=name, log=False) for name in (ACCURACY, GAP)]
    return wr.ParallelCoordinatesPlot(title=heading, columns=[*swept, *results])


def _importance() -> list[Any]:
    return [wr.ParameterImportancePlot(with_respect_to=name) for name in (ACCURACY, GAP)]


def _scatter() -> Any:
    return wr.ScatterPlot(
        title="Gap against accuracy: the best runs are at the lower right",
        x=wr.SummaryMetric(ACCURACY),
        y=wr.SummaryMetric(GAP),
    )


def _curves(groupby: Any) -> list[Any]:
    options: dict[str, Any] = {"max_runs_to_show": RUNS_SHOWN}
    if groupby is not None:  # there are as many means as sweeps
        options = {"max_runs_to_show": 100, "groupby": groupby, **_MEANS}
    plots = (
        ("Accuracy over epochs", "accuracy", ["val_acc", "train_acc"]),
        ("Loss over epochs", "loss", ["val_loss", "train_loss"]),
        ("Train-val gap over epochs", "train_acc - val_acc", [GAP]),
    )
    return [
        wr.LinePlot(title=heading, x="epoch", y=metrics, title_x="epoch", title_y=unit, **options)
        for heading, unit, metrics in plots
    ]


def _compared(sweeps: Sequence[ShownSweep]) -> list[Any]:
    groupby = _grouping(sweeps)
    what = "architecture" if groupby != wr.Metric("Sweep") else "sweep"
    return [
        wr.BarPlot(
            title=f"Best validation accuracy of each {what}", metrics=[ACCURACY], groupby=groupby, groupby_aggfunc="max"
        ),
        wr.BarPlot(
            title=f"Train-val gap of each {what}: mean, smallest and largest",
            metrics=[GAP],
            groupby=groupby,
            **_MEANS,
        ),
    ]


def _grouping(sweeps: Sequence[ShownSweep]) -> Any:
    """Group by architecture if each sweep has its own, else by sweep."""
    models = [sweep.models for sweep in sweeps]
    return wr.Config("model") if len(set(models)) == len(models) == sum(map(len, models)) else wr.Metric("Sweep")


def _runset(sweep: ShownSweep, axes: Sequence[Axis]) -> Any:
    # W&B wraps only the outermost level of a nested config: {"augment": {"value": {"shift": 0.1}}}.
    nested = [axis.name.partition(".") for axis in axes]
    return wr.Runset(
        entity=sweep.entity,
        project=sweep.project,
        name=sweep.label,
        filters=f"Metric('Sweep') = {sweep.id!r}",
        order=[wr.OrderBy(wr.SummaryMetric(ACCURACY), ascending=False)],
        pinned_columns=_PINNED,
        visible_columns=[f"config:{outer}.value{dot}{inner}" for outer, dot, inner in nested],
    )


def _winner(sweep: ShownSweep) -> Any:
    runset = _runset(sweep, sweep.axes)
    if sweep.winner is not None:
        runset.filters = f"Metric('Sweep') = {sweep.id!r} and Metric('ID') = {sweep.winner!r}"
        runset.name = f"winner of {sweep.label}"
    return runset


def _confusion() -> Any:
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": "confusion_matrix_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
        chart_strings={"title": "Confusion matrix"},
    )


def _sized(panel: Any, width: int, height: int) -> Any:
    """Size a panel on the grid, 24 columns wide, on which the library places panels from left to right."""
    panel.layout = wr.Layout(w=width, h=height)
    return panel
