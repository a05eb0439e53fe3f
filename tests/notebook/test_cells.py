"""What a notebook's cell shows of sweeps is one small piece of HTML; of one sweep, every figure of Plotly's."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.notebook.cells import KINDS, RANKED, cell, plotted
from fer_sweep.records import Verdict
from tests.support import reports as made_up

SVG = "{http://www.w3.org/2000/svg}"


def test_a_cell_has_the_state_the_winner_the_ten_best_and_two_pictures_of_every_trial():
    report = made_up.report(made_up.sweep(trials=40))
    shown = cell(report, "finished")
    winner = report.selection.winner
    assert winner is not None and "finished, " in shown and f"Winner: <b>{report.label(winner.name)}</b>" in shown
    ranked = re.findall(r"<td[^>]*>trial (\d+)</td>", shown)
    assert "Confirmed: not yet: fersweep confirm s0000000 --trial " in shown and "Test split: never opened" in shown
    assert ranked == [candidate.record.trial_id for candidate in report.selection.ranking[:RANKED]]
    pareto, accuracy = (ElementTree.fromstring(svg) for svg in re.findall(r"<svg viewBox.*?</svg></svg>", shown))
    assert len(pareto.findall(".//circle")) == len(report.selection.ranking)
    (star,) = [text for text in pareto.iter("text") if text.text == "★"]
    assert star[0].text.startswith(f"{report.label(winner.name)}: {100 * winner.result.best_val_acc:.3f}"[:20])
    assert len(accuracy.findall(".//path[@fill='none']")) == 2 * len(report.curves)
    assert len(shown) < 40_000 and "<script" not in shown


def test_text_from_elsewhere_is_escaped_once():
    shown = cell(made_up.hostile("<img src=x onerror=alert(1)> & co"), "running")
    assert "<img" not in shown and "&lt;img src=x" in shown and "&amp;lt;" not in shown


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_figure_can_be_plotted(kind):
    figure = plotted(made_up.report(made_up.sweep(trials=40)), kind)
    assert figure.data and figure.layout.title.text
    if kind == "parallel":
        (axis,) = [axis for axis in figure.data[0].dimensions if axis.label == "accuracy, %"]
        assert figure.data[0].line.color == axis["values"]


def test_an_unknown_figure_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="no figure 'bar'") as error:
        plotted(made_up.report(made_up.sweep(trials=3)), "bar")
    assert all(kind in error.value.hint for kind in KINDS)


@pytest.mark.parametrize(("kind", "why"), [("importance", "it takes 20 complete trials"), ("confusion", "collapsed")])
def test_a_figure_that_the_trials_do_not_suffice_for_says_why(kind, why):
    made, histories = made_up.sweep(trials=3)
    records = tuple(
        replace(r, result=r.result and r.result.model_copy(update={"verdict": Verdict.COLLAPSED})) for r in made.records
    )
    with pytest.raises(NothingToDo, match=why):
        plotted(made_up.report((replace(made, records=records), histories)), kind)
