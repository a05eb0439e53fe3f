"""Figures are pure: what is on which axis, in which unit, and what is said of it."""

import dataclasses
import math
import re
from typing import Any

import pytest

pytest.importorskip("plotly", reason="the HTML report needs plotly")

from fer_sweep.records import TrialState
from fer_sweep.reports import figures, palette, shares
from fer_sweep.reports.importance import Importance
from fer_sweep.reports.page import figures_of, row_places, table, views
from fer_sweep.reports.parallel import common_axes, dimension
from fer_sweep.reports.shown import Axis
from fer_sweep.reports.sources import Report, best_of_each_model, best_trials
from fer_sweep.selection import select
from tests.support import reports as made_up


@pytest.fixture(scope="module")
def one() -> Report:
    return made_up.report(made_up.sweep(trials=40, seed=3))


@pytest.fixture(scope="module")
def three() -> Report:
    return made_up.report(
        *(made_up.sweep(m, trials=15, seed=i) for i, m in enumerate(("simple_cnn", "resnet18", "vit")))
    )


def named(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.spec["data"] if trace["name"] == name)


def test_the_front_the_winner_and_the_band(one: Report) -> None:
    figure = figures.pareto(one, row_places(one))
    winner, selection = one.selection.winner, one.selection
    assert winner is not None
    star = named(figure, "winner")
    assert list(star["x"]) == [round(100 * winner.result.best_val_acc, 3)] and star["marker"]["symbol"] == "star"
    front = named(figure, "Pareto front")
    assert list(front["x"]) == sorted(front["x"], reverse=True) and list(front["y"]) == sorted(front["y"], reverse=True)
    (band,) = figure.spec["layout"]["shapes"]
    assert band["x1"] - band["x0"] == pytest.approx(100 * selection.standard_error)
    best = max(c.result.best_val_acc for c in selection.eligible)
    assert band["x1"] == pytest.approx(100 * best)
    assert winner.record.trial_id in figure.summary and "Pareto front" in figure.summary
    assert len(figure.body) == len(selection.pareto)


def test_every_trial_with_a_result_is_a_dot_that_knows_its_row(one: Report) -> None:
    figure = figures.pareto(one, row_places(one))
    dots = [row for trace in figure.spec["data"] if trace["mode"] == "markers" for row in trace["customdata"]]
    with_result = [place for place, (_, record) in enumerate(one.trials) if record.result is not None]
    assert sorted(set(dots)) == with_result


def test_the_constraint_moves_the_band(one: Report) -> None:
    tightest = sorted(c.gap for c in one.selection.eligible)[3]
    selection = select(one.selection.ranking, max_gap=tightest)
    tight = dataclasses.replace(one, choice=dataclasses.replace(one.choice, overall=selection))
    (band,) = figures.pareto(tight, row_places(tight)).spec["layout"]["shapes"]
    best = max(c.result.best_val_acc for c in selection.eligible if c.gap <= tightest)
    assert band["x1"] == pytest.approx(100 * best) and best < one.selection.near[0].result.best_val_acc


def test_one_that_collapsed_is_out_of_sight_and_the_best_never_is(one: Report) -> None:
    (sweep,) = one.sweeps
    results = [r.result for r in sweep.records if r.result is not None]
    values = [(0.60 + place / 1000, 0.1) for place in range(len(results) - 2)] + [(0.14, 0.9), (0.8, -0.2)]
    records = [
        dataclasses.replace(
            sweep.records[0],
            trial_id=str(place),
            state=TrialState.COMPLETE,
            result=results[place].model_copy(update={"best_val_acc": accuracy, "train_val_gap": gap}),
        )
        for place, (accuracy, gap) in enumerate(values)
    ]
    report = made_up.report((dataclasses.replace(sweep, records=tuple(records)), {str(i): [] for i in range(40)}))
    layout = figures.pareto(report, row_places(report)).spec["layout"]
    x, y = layout["xaxis"]["range"], layout["yaxis"]["range"]
    assert x[0] > 14 and x[1] > 80 and y[0] < -20 and y[1] < 90


def test_curves_of_the_best_trials_in_percent(one: Report) -> None:
    accuracy, loss, gap = figures.curves(one, best_trials(one.selection), "best")
    assert len(accuracy.spec["data"]) == len(loss.spec["data"]) == 16 and len(gap.spec["data"]) == 8
    assert [trace["line"]["dash"] for trace in accuracy.spec["data"][:2]] == ["solid", "dot"]
    colours = {trace["line"]["color"] for trace in gap.spec["data"]}
    assert len(colours) == 8, "eight trials, eight colours"
    first = best_trials(one.selection)[0]
    curve = one.curves[first.sweep, first.record.trial_id]
    assert accuracy.spec["data"][0]["y"][0] == pytest.approx(100 * curve[0]["val_acc"], rel=1e-4)
    assert loss.spec["data"][1]["y"][-1] == pytest.approx(curve[-1]["train_loss"], rel=1e-4)


def test_a_loss_that_is_not_finite_is_a_hole(one: Report) -> None:
    first = best_trials(one.selection)[0]
    key = first.sweep, first.record.trial_id
    broken = [{**row, "val_loss": math.inf if row["epoch"] == 2 else row["val_loss"]} for row in one.curves[key]]
    _, loss, _ = figures.curves(dataclasses.replace(one, curves={**one.curves, key: broken}), [first], "best")
    assert loss.spec["data"][0]["y"][1] is None


def test_each_architectures_best(three: Report) -> None:
    best = best_of_each_model(three.selection)
    assert {c.record.config["model"] for c in best} == {"simple_cnn", "resnet18", "vit"}
    accuracy, *_ = figures.curves(three, best, "models")
    assert {trace["name"].split(",")[0] for trace in accuracy.spec["data"]} == {"simple_cnn", "resnet18", "vit"}


def test_progress_is_a_stair_over_the_epochs_spent(one: Report) -> None:
    figure = figures.progress(one, row_places(one))
    stair = named(figure, "best so far")
    assert list(stair["y"]) == sorted(stair["y"]) and list(stair["x"]) == sorted(stair["x"])
    spent = sum(record.result.epochs for _, record in one.trials if record.result is not None)
    assert stair["x"][-1] == spent and f"{spent:,} epochs" in figure.summary
    assert named(figure, "pruned")["marker"]["symbol"] != named(figure, "complete")["marker"]["symbol"]


def test_confusion_and_recall_of_the_winner(one: Report) -> None:
    winner = one.selection.winner
    assert winner is not None
    matrix = shares.confusion(winner)
    assert all(sum(row) == pytest.approx(100, abs=0.5) for row in matrix.spec["data"][0]["z"])
    assert matrix.body[3][1:] == tuple(str(n) for n in winner.result.confusion_matrix[3])
    bars = shares.recall(winner)
    assert list(bars.spec["data"][0]["x"]) == sorted(bars.spec["data"][0]["x"])
    assert "worst on" in bars.summary


def test_importances_and_why_there_are_none(one: Report) -> None:
    (sweep,) = one.sweeps
    figure = shares.importances(
        sweep, Importance({"lr": 0.8, "dropout": 0.2}), Importance(missing="why"), several=False
    )
    assert [trace["name"] for trace in figure.spec["data"]] == ["for accuracy"]
    assert figure.summary == "For accuracy, lr mattered most (80 %). No importance for gap: why."
    nothing = shares.importances(sweep, Importance(missing="a"), Importance(missing="b"), several=False)
    assert not nothing.spec and not nothing.body


def test_log_axes_have_logarithms_and_round_ticks(one: Report) -> None:
    records = one.sweeps[0].records
    lr = dimension(made_up.AXES[0], records)
    assert lr.kind == "log" and lr.range == pytest.approx((-4, -1))
    assert list(lr.values) == pytest.approx([math.log10(r.parameters["lr"]) for r in records], rel=1e-5)
    named = [name for _, name in lr.ticks if name]
    assert named == ["0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]


def test_choices_are_places_on_their_axis_numbers_in_order() -> None:
    records = made_up.sweep(trials=10)[0].records
    size = dimension(Axis("batch_size", log=False, choices=(256, 64, 128)), records)
    assert (size.kind, size.choices) == ("choice", ("64", "128", "256"))
    assert [size.choices[int(v)] for v in size.values] == [str(r.parameters["batch_size"]) for r in records]


def test_a_trial_without_a_parameter_crosses_its_axis_at_none() -> None:
    first, *others = made_up.sweep(trials=6)[0].records
    bare = dataclasses.replace(first, parameters={}, config={})
    lr = dimension(made_up.AXES[0], [bare, *others])
    assert lr.ticks[0] == (lr.values[0], "none") and lr.values[0] < min(lr.values[1:])
    optimizer = dimension(made_up.AXES[3], [bare, *others])
    assert optimizer.choices[int(optimizer.values[0])] == "none"


def test_sweeps_side_by_side_share_axes_after_the_architecture() -> None:
    wide = Axis("lr", log=True, bounds=(1e-4, 1e-2))
    other = Axis("lr", log=True, bounds=(1e-3, 1e-1))
    joined = common_axes([(wide, Axis("depth", log=False)), (other,)], ["vit", "resnet18"])
    assert joined == (Axis("model", False, ("vit", "resnet18")), Axis("lr", True, None, (1e-4, 1e-1)))


def test_views_are_one_a_sweep_after_one_of_all(three: Report) -> None:
    shown = views(three)
    assert [view["label"] for view in shown] == ["all sweeps", *(sweep.label for sweep in three.sweeps)]
    assert shown[0]["dimensions"][0]["name"] == "model"
    for view in shown:
        counts = {len(d["values"]) for d in view["figure"]["data"][0]["dimensions"]}
        assert counts == {len(view["rows"])} == {len(view["accuracy"])}


def test_the_table_has_a_column_for_what_varies_only(one: Report) -> None:
    shown = table(one)
    keys = [column["key"] for column in shown["columns"]]
    assert "param.lr" in keys and "param.epochs" not in keys and "sweep" not in keys
    assert len(shown["rows"]) == 40 and all(len(row) == len(keys) for row in shown["rows"])


def test_nothing_is_drawn_of_trials_without_results(one: Report) -> None:
    (sweep,) = one.sweeps
    bare = tuple(dataclasses.replace(r, result=None, state=TrialState.FAILED) for r in sweep.records)
    empty = made_up.report((dataclasses.replace(sweep, records=bare), {}))
    assert figures_of(empty, []) == {} and views(empty) == []


def test_labels_are_no_markup(one: Report) -> None:
    (sweep,) = one.sweeps
    evil = "<a href='javascript:x'>%{x}</a>"
    records = tuple(dataclasses.replace(r, trial_id=f"{evil}{r.trial_id}") for r in sweep.records)
    curves = {(s, f"{evil}{t}"): rows for (s, t), rows in one.curves.items()}
    hostile = made_up.report((dataclasses.replace(sweep, records=records), {t: c for (_, t), c in curves.items()}))
    shown = repr([f.spec for some in figures_of(hostile, []).values() for f in some])
    assert "<a" not in shown and not re.search(r"%\{x\}</", shown) and "&lt;a" in shown


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_both_grounds() -> None:
    for light, dark in (*palette.LINES, *palette.SCALE, palette.QUIET, palette.STAR):
        assert _contrast(light, "#ffffff") >= 3, light
        assert _contrast(dark, "#171c24") >= 3, dark
    assert len(palette.exchange()) == len(palette.LINES) + len(palette.SCALE) + len(palette.SHADES) + 3
