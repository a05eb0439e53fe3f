"""Figures are pure: what is on which axis, in which unit, and what is said of it."""

import dataclasses
import math
from typing import Any

import pytest

from fer_sweep.reports import figures
from fer_sweep.reports.curves import curves
from fer_sweep.reports.optuna_view import Importance
from fer_sweep.reports.page import dimension, table, views
from fer_sweep.reports.plot import LINES, colours_of
from fer_sweep.reports.sources import Axis, Report, best_of_each_model, best_trials, common_axes
from fer_sweep.selection import select
from tests.support import reports as made_up
from tests.support.records import candidate


@pytest.fixture(scope="module")
def one() -> Report:
    return made_up.report(made_up.sweep(trials=40, seed=3))


def named(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.spec["data"] if trace["name"] == name)


def test_accuracy_against_gap_with_the_front_the_winner_and_the_band_of_the_constraint(one: Report) -> None:
    tightest = sorted(c.gap for c in one.selection.eligible)[3]
    selection = select(one.selection.ranking, max_gap=tightest)
    tight = dataclasses.replace(one, choice=dataclasses.replace(one.choice, overall=selection))
    figure = figures.pareto(tight)
    assert selection.winner is not None
    star = named(figure, "winner")
    accuracy = 100 * selection.winner.result.best_val_acc
    assert list(star["x"]) == [pytest.approx(accuracy, abs=0.001)] and star["marker"]["symbol"] == "star"
    front = named(figure, "Pareto front")
    assert list(front["x"]) == sorted(front["x"], reverse=True) and list(front["y"]) == sorted(front["y"], reverse=True)
    (band,) = figure.spec["layout"]["shapes"]
    assert band["x1"] - band["x0"] == pytest.approx(100 * selection.standard_error)
    best = max(c.result.best_val_acc for c in selection.eligible if c.gap <= tightest)
    assert band["x1"] == pytest.approx(100 * best) and best < selection.eligible[0].result.best_val_acc
    assert selection.winner.record.trial_id in figure.summary and len(figure.body) == len(selection.pareto)
    dots = {row for trace in figure.spec["data"] if trace["mode"] == "markers" for row in trace["customdata"]}
    assert dots == {place for place, (_, record) in enumerate(one.trials) if record.result is not None}


def test_one_that_collapsed_is_out_of_sight_and_the_best_never_is(one: Report) -> None:
    values = [*((0.60 + place / 1000, 0.1) for place in range(20)), (0.14, 0.86), (0.8, -0.2)]
    records = tuple(candidate(str(place), *pair).record for place, pair in enumerate(values))
    curves = {record.trial_id: [] for record in records}
    report = made_up.report((dataclasses.replace(one.sweeps[0], records=records), curves))
    layout = figures.pareto(report).spec["layout"]
    x, y = layout["xaxis"]["range"], layout["yaxis"]["range"]
    assert x[0] > 14 and x[1] > 80 and y[0] < -20 and y[1] < 86


def test_curves_of_the_best_trials_in_percent(one: Report) -> None:
    first, *_ = best = best_trials(one.selection)
    key = first.name
    curve = [{**row, "val_loss": math.inf if row["epoch"] == 2 else row["val_loss"]} for row in one.curves[key]]
    accuracy, loss, gap = curves(dataclasses.replace(one, curves={**one.curves, key: curve}), best, "best")
    assert len(accuracy.spec["data"]) == len(loss.spec["data"]) == 17, "two lines each, and the winner's star"
    assert [trace["line"]["dash"] for trace in accuracy.spec["data"][:2]] == ["solid", "dot"]
    lines = [trace for trace in gap.spec["data"] if trace["mode"] == "lines"]
    assert len({trace["line"]["color"] for trace in lines}) == 8, "eight trials, eight colours"
    assert accuracy.spec["data"][0]["y"][0] == pytest.approx(100 * curve[0]["val_acc"], rel=1e-4)
    assert loss.spec["data"][1]["y"][-1] == pytest.approx(curve[-1]["train_loss"], rel=1e-4)
    assert loss.spec["data"][0]["y"][1] is None, "a loss that is not finite is a hole"


def test_progress_is_a_stair_over_the_epochs_spent(one: Report) -> None:
    figure = figures.progress(one)
    stair = named(figure, "best so far")
    assert list(stair["y"]) == sorted(stair["y"]) and list(stair["x"]) == sorted(stair["x"])
    spent = sum(record.result.epochs for _, record in one.trials if record.result is not None)
    assert stair["x"][-1] == spent and f"{spent:,} epochs" in figure.summary
    assert named(figure, "pruned")["marker"]["symbol"] != named(figure, "complete")["marker"]["symbol"]


def test_confusion_and_recall_of_the_winner(one: Report) -> None:
    winner = one.selection.winner
    assert winner is not None
    matrix, bars = figures.confusion(winner), figures.recall(winner, LINES[2])
    assert all(sum(row) == pytest.approx(100, abs=0.5) for row in matrix.spec["data"][0]["z"])
    assert matrix.body[3][1:] == tuple(str(n) for n in winner.result.confusion_matrix[3])
    assert list(bars.spec["data"][0]["x"]) == sorted(bars.spec["data"][0]["x"])
    assert "worst on" in bars.summary


def test_importances_and_why_there_are_none(one: Report) -> None:
    found = Importance({"lr": 0.8, "dropout": 0.2}), Importance(missing="why")
    figure = figures.importance_bars(one.sweeps[0], *found, "Parameter importance", LINES[2])
    assert [trace["name"] for trace in figure.spec["data"]] == ["for accuracy"]
    assert figure.summary == "For accuracy, lr mattered most (80 %). No importance for gap: why."
    nothing = figures.importance_bars(one.sweeps[0], found[1], found[1], "Parameter importance", LINES[2])
    assert nothing.summary == "No importance: why." and not nothing.spec and not nothing.body


def test_axes_have_logarithms_choices_in_order_and_a_place_for_none() -> None:
    first, *others = made_up.sweep(trials=10)[0].records
    lr = dimension(made_up.AXES[0], others)
    assert lr.kind == "log" and lr.range == pytest.approx((-4, -1))
    assert list(lr.values) == pytest.approx([math.log10(r.parameters["lr"]) for r in others], rel=1e-5)
    ticks = ["0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]
    assert [name for _, name in lr.ticks if name] == ticks
    size = dimension(Axis("batch_size", log=False, choices=(256, 64, 128)), others)
    assert (size.kind, size.choices) == ("choice", ("64", "128", "256"))
    assert [size.choices[int(v)] for v in size.values] == [str(r.parameters["batch_size"]) for r in others]
    bare = [dataclasses.replace(first, parameters={}, config={}), *others]
    lr, optimizer = (dimension(axis, bare) for axis in (made_up.AXES[0], made_up.AXES[3]))
    assert lr.ticks[0] == (lr.values[0], "none") and lr.values[0] < min(lr.values[1:])
    assert optimizer.choices[int(optimizer.values[0])] == "none"


def test_several_sweeps_have_a_view_of_all_and_one_each_and_the_best_of_each_architecture() -> None:
    models = ("simple_cnn", "resnet18", "vit")
    three = made_up.report(*(made_up.sweep(model, trials=15, seed=seed) for seed, model in enumerate(models)))
    accuracy, *_ = curves(three, best_of_each_model(three.choice), "models")
    by_model = {trace["name"].removeprefix("★ winner, ").split("/")[0]: trace for trace in accuracy.spec["data"]}
    assert set(by_model) - {"winner"} == set(models)
    drawn = {model: by_model[model]["line"]["color"] for model in models}
    dots = {trace["name"]: trace["marker"]["color"] for trace in figures.pareto(three).spec["data"][1:]}
    stairs = {
        trace["name"]: trace["line"]["color"] for trace in figures.progress(three).spec["data"] if "line" in trace
    }
    assert drawn == {model: dots[model] for model in models} == stairs == colours_of(models), "one colour everywhere"
    best = curves(three, best_trials(three.selection), "best")[0].spec["data"]
    assert len({t["line"]["color"] for t in best if t["mode"] == "lines"}) == 8, "several of one architecture"
    low, high = Axis("lr", log=True, bounds=(1e-4, 1e-2)), Axis("lr", log=True, bounds=(1e-3, 1e-1))
    axes = (low, Axis("depth", log=False)), (high,), (high,)
    joined = common_axes([dataclasses.replace(s, axes=a) for s, a in zip(three.sweeps, axes, strict=True)])
    assert joined == (Axis("model", False, models), Axis("lr", True, None, (1e-4, 1e-1)))
    shown = views(three)
    assert [view["label"] for view in shown] == ["all sweeps", *models]
    assert shown[0]["dimensions"][0]["name"] == "model"
    for view in shown:
        counts = {len(d["values"]) for d in view["figure"]["data"][0]["dimensions"]}
        assert counts == {len(view["rows"])}
    keys = table(three)["columns"]
    assert {"sweep", "param.lr", "param.model"} <= set(keys) and "param.epochs" not in keys, (
        "a column for what varies only"
    )
    assert [len(row) for row in table(three)["rows"]] == [len(keys)] * 45


def test_labels_are_no_markup() -> None:
    shown = repr(
        [
            f.spec
            for some in figures.figures_of(made_up.hostile("<a href='javascript:x'>%{x}</a>")).values()
            for f in some
        ]
    )
    assert "<a" not in shown and "%{x}</" not in shown and "&lt;a" in shown


def test_the_winner_is_marked_in_every_figure_of_trials(one: Report) -> None:
    assert one.selection.winner is not None
    place = one.places[one.selection.winner.name]
    found = figures.figures_of(one)
    for figure in [*found["pareto"], *found["progress"]]:
        assert list(named(figure, "winner")["customdata"]) == [place]
    for figure in found["best"]:
        star, line = named(figure, "winner"), next(t for t in figure.spec["data"] if t["name"].startswith("★ winner"))
        assert star["meta"] == line["meta"] == place and list(star["x"]) == [one.selection.winner.result.best_epoch]
        assert "dropout" in line["hovertemplate"]
