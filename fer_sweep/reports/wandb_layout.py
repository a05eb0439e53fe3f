"""What the W&B report and workspace of sweeps show: their texts and panels, as objects of ``wandb-workspaces``.

Nothing here speaks to a server. Names in sweep files are anybody's text: they only become text nodes and labels, which
W&B shows as they are, never Markdown, LaTeX, HTML or a link.
"""

from collections.abc import Sequence
from typing import Any

from fer_sweep.reports.shown import Axis, ShownSweep, file_name, plain, title, workspace_name
from fer_sweep.selection import RULE

RUNS_SHOWN = 20
"""Lines a plot draws for each metric: the runs with the best validation accuracy."""
_LONGEST_FILE = 20_000
"""Longest sweep file that a report includes, in characters; the sweep's page has it too."""

ACCURACY, GAP = "best_val_acc", "train_val_gap"
_RESULTS = ("run:displayName", f"summary:{ACCURACY}", f"summary:{GAP}")
"""Pinned columns of the table of runs."""

MEASURED = (
    "train_acc is measured as val_acc is: in evaluation mode, without augmentation, on a fixed sample of training "
    "images as large as the validation split; the running accuracy under augmentation and dropout would not be "
    "comparable. train_val_gap is train_acc minus val_acc. In the summary of a finished run both are those of its "
    "best epoch."
)


def report(wr: Any, sweeps: Sequence[ShownSweep]) -> Any:
    """The report, in the project of the first sweep.

    Args:
        wr: The module ``wandb_workspaces.reports.v2``.
        sweeps: At least one.
    """
    blocks = [wr.TableOfContents(), *_side_by_side(wr, sweeps)] if len(sweeps) > 1 else []
    for sweep in sweeps:
        blocks += [wr.H2(sweep.label if len(sweeps) > 1 else "Parameters, accuracy and gap"), *_one_sweep(wr, sweep)]
    blocks += [
        wr.H2("Confusion matrix"),
        wr.P(
            "Counted on the validation split at the best epoch of the run that the rule below picked from a sweep when "
            "this was saved, or of all its runs while there was none to pick."
        ),
        wr.PanelGrid(runsets=[_winner(wr, sweep) for sweep in sweeps], panels=[_at(wr, _confusion(wr), 0, 0, 24, 14)]),
        wr.H2("How accuracy and gap are measured"),
        wr.P(MEASURED),
        wr.H2("Which run to take"),
        wr.P(f"fersweep best applies the one-standard-error rule. {RULE}"),
        *_again(wr, sweeps),
    ]
    first = sweeps[0]
    return wr.Report(
        entity=first.entity,
        project=first.project,
        title=title(sweeps),
        description="Accuracy and train-val gap over the swept parameters. Saved by fersweep report --wandb.",
        blocks=blocks,
        width="fluid",
    )


def workspace(ws: Any, wr: Any, sweeps: Sequence[ShownSweep]) -> Any:
    """The workspace, in the project of the first sweep; it can show the runs of that project only.

    Args:
        ws: The module ``wandb_workspaces.workspaces``.
        wr: The module ``wandb_workspaces.reports.v2``.
        sweeps: At least one.
    """
    first = sweeps[0]
    here = [sweep for sweep in sweeps if (sweep.entity, sweep.project) == (first.entity, first.project)]
    axes = _common_axes(here)
    ids = [sweep.id for sweep in here]
    compared = _compared(wr, here) if len(here) > 1 else []
    plots = _curves(wr, None) if len(here) == 1 else _curves(wr, _grouping(wr, here))
    rows = (
        ("Swept parameters", 1, [_parallel(wr, axes)]),
        ("Parameter importance", 2, _importance(wr)),
        ("Accuracy against gap", len(compared) + 1, [*compared, _scatter(wr)]),
        ("Over the epochs", 3, plots),
        ("Run by run", 1, [wr.RunComparer(diff_only="split")]),
        ("Confusion matrix", 1, [_confusion(wr)]),
    )
    return ws.Workspace(
        entity=first.entity,
        project=first.project,
        name=workspace_name(sweeps),
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
            order=[_best_first_in_workspace()],
            pinned_columns=list(_RESULTS),
        ),
    )


def _side_by_side(wr: Any, sweeps: Sequence[ShownSweep]) -> list[Any]:
    accuracy, gap = _compared(wr, sweeps)
    curves = _curves(wr, _grouping(wr, sweeps))
    shared = _common_axes(sweeps)
    panels = [
        _at(wr, accuracy, 0, 0, 12, 8),
        _at(wr, gap, 12, 0, 12, 8),
        *(_at(wr, curve, 8 * place, 8, 8, 8) for place, curve in enumerate(curves)),
        _at(wr, _scatter(wr), 0, 16, 24, 10),
        _at(wr, _parallel(wr, shared, "Parameters that all of these sweeps search"), 0, 26, 24, 12),
    ]
    return [
        wr.H2("Side by side"),
        wr.P("Lines are means over the runs of a sweep; the bands reach from the smallest value to the largest."),
        wr.PanelGrid(runsets=[_runset(wr, sweep, shared) for sweep in sweeps], panels=panels),
    ]


def _one_sweep(wr: Any, sweep: ShownSweep) -> list[Any]:
    importance, gap_importance = _importance(wr)
    accuracy, loss, gap = _curves(wr, None)
    panels = [
        _at(wr, _parallel(wr, sweep.axes), 0, 0, 24, 12),
        _at(wr, importance, 0, 12, 12, 9),
        _at(wr, gap_importance, 12, 12, 12, 9),
        _at(wr, _scatter(wr), 0, 21, 12, 9),
        _at(wr, gap, 12, 21, 12, 9),
        _at(wr, accuracy, 0, 30, 12, 9),
        _at(wr, loss, 12, 30, 12, 9),
        _at(wr, wr.RunComparer(diff_only="split"), 0, 39, 24, 12),
    ]
    return [
        wr.P(_about(wr, sweep)),
        wr.P(
            "A line through the axes is a run: its parameters, then what came of them. Below: which parameters matter "
            f"for accuracy and gap; gap against accuracy; the curves of the {RUNS_SHOWN} most accurate runs."
        ),
        wr.PanelGrid(runsets=[_runset(wr, sweep, sweep.axes)], panels=panels),
    ]


def _about(wr: Any, sweep: ShownSweep) -> list[Any]:
    said = plain(sweep.description, 300)
    swept = ", ".join(f"{axis.name} (log)" if axis.log else axis.name for axis in sweep.axes) or "nothing"
    return [
        f"{said}. " if said and said[-1] not in ".!?…" else f"{said} ".lstrip(),
        wr.Link(f"Sweep {sweep.id}", url=sweep.url),
        f" in {sweep.entity}/{sweep.project} trains {' and '.join(sweep.models)} by method {sweep.method}; it had "
        f"{sweep.runs} {'run' if sweep.runs == 1 else 'runs'} when this was saved. It searches {swept}.",
    ]


def _again(wr: Any, sweeps: Sequence[ShownSweep]) -> list[Any]:
    lines = []
    for sweep in sweeps:
        lines += [f"# {', '.join(sweep.models)}: the file below, saved as {file_name(sweep.id)}"]
        lines += [sweep.create, "fersweep agent", ""]
    lines += ["# the winner", f"fersweep best {' '.join(s.argument for s in sweeps)}"]
    files = []
    for sweep in sweeps:
        file = sweep.file if len(sweep.file) <= _LONGEST_FILE else "# too long for a report: see the sweep's page\n"
        files.append(wr.H3(file_name(sweep.id), collapsed_blocks=[wr.CodeBlock(file, language="yaml")]))
    # W&B does not highlight shell code.
    return [wr.H2("Do it again"), wr.CodeBlock("\n".join(lines), language="python"), *files]


def _parallel(wr: Any, axes: Sequence[Axis], heading: str = "Swept parameters, accuracy and gap") -> Any:
    column = wr.ParallelCoordinatesPlotColumn
    swept = [column(wr.Config(axis.name), display_name=axis.name, log=axis.log) for axis in axes]
    results = [column(wr.SummaryMetric(name), display_name=name, log=False) for name in (ACCURACY, GAP)]
    return wr.ParallelCoordinatesPlot(title=heading, columns=[*swept, *results])


def _importance(wr: Any) -> list[Any]:
    return [wr.ParameterImportancePlot(with_respect_to=name) for name in (ACCURACY, GAP)]


def _scatter(wr: Any) -> Any:
    return wr.ScatterPlot(
        title="Gap against accuracy: the best runs are at the lower right",
        x=wr.SummaryMetric(ACCURACY),
        y=wr.SummaryMetric(GAP),
    )


def _curves(wr: Any, groupby: Any) -> list[Any]:
    grouped = {} if groupby is None else {"groupby": groupby, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    plots = (
        ("Accuracy over epochs", "accuracy", ["val_acc", "train_acc"]),
        ("Loss over epochs", "loss", ["val_loss", "train_loss"]),
        ("Train-val gap over epochs", "train_acc - val_acc", [GAP]),
    )
    return [
        wr.LinePlot(
            title=heading,
            x="epoch",
            y=metrics,
            title_x="epoch",
            title_y=unit,
            # There are as many means as sweeps.
            max_runs_to_show=RUNS_SHOWN if groupby is None else 100,
            **grouped,
        )
        for heading, unit, metrics in plots
    ]


def _compared(wr: Any, sweeps: Sequence[ShownSweep]) -> list[Any]:
    groupby = _grouping(wr, sweeps)
    what = "architecture" if groupby != wr.Metric("Sweep") else "sweep"
    return [
        wr.BarPlot(
            title=f"Best validation accuracy of each {what}", metrics=[ACCURACY], groupby=groupby, groupby_aggfunc="max"
        ),
        wr.BarPlot(
            title=f"Train-val gap of each {what}: mean, smallest and largest",
            metrics=[GAP],
            groupby=groupby,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        ),
    ]


def _grouping(wr: Any, sweeps: Sequence[ShownSweep]) -> Any:
    """Group by architecture if each sweep has its own, else by sweep."""
    models = [sweep.models for sweep in sweeps]
    return wr.Config("model") if len(set(models)) == len(models) == sum(map(len, models)) else wr.Metric("Sweep")


def _common_axes(sweeps: Sequence[ShownSweep]) -> tuple[Axis, ...]:
    """The axes of all sweeps; first one for the architecture if there are several."""
    first, *others = [{axis.name: axis.log for axis in sweep.axes} for sweep in sweeps]
    common = [
        Axis(name, log and all(axes[name] for axes in others))
        for name, log in first.items()
        if name != "model" and all(name in axes for axes in others)
    ]
    models = {model for sweep in sweeps for model in sweep.models}
    return (*([Axis("model", False)] if len(models) > 1 else []), *common)


def _runset(wr: Any, sweep: ShownSweep, axes: Sequence[Axis]) -> Any:
    return wr.Runset(
        entity=sweep.entity,
        project=sweep.project,
        name=sweep.label,
        filters=f"Metric('Sweep') = {sweep.id!r}",
        order=[wr.OrderBy(wr.SummaryMetric(ACCURACY), ascending=False)],
        pinned_columns=list(_RESULTS),
        visible_columns=_columns(axes),
    )


def _winner(wr: Any, sweep: ShownSweep) -> Any:
    runset = _runset(wr, sweep, sweep.axes)
    if sweep.winner is not None:
        runset.filters = f"Metric('Sweep') = {sweep.id!r} and Metric('ID') = {sweep.winner!r}"
        runset.name = f"winner of {sweep.label}"
    return runset


def _columns(axes: Sequence[Axis]) -> list[str]:
    # W&B wraps only the outermost level of a nested config: {"augment": {"value": {"shift": 0.1}}}.
    nested = [axis.name.partition(".") for axis in axes]
    return [f"config:{outer}.value{dot}{inner}" for outer, dot, inner in nested]


def _confusion(wr: Any) -> Any:
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": "confusion_matrix_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
        chart_strings={"title": "Confusion matrix"},
    )


def _at(wr: Any, panel: Any, x: int, y: int, w: int, h: int) -> Any:
    """Put a panel on the grid, 24 columns wide."""
    panel.layout = wr.Layout(x=x, y=y, w=w, h=h)
    return panel


def _best_first_in_workspace() -> Any:
    from wandb_workspaces import expr

    return expr.Ordering(expr.Summary(ACCURACY), ascending=False)
