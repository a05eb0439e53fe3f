"""What reports say of how far a winner can be trusted: the same lines in HTML and Markdown."""

import dataclasses
import html
import re

import pytest

from fer_sweep.openings import Opening
from fer_sweep.reports.html import render
from fer_sweep.reports.sources import Report, certainty
from fer_sweep.reports.tables import markdown
from fer_sweep.selection import Confirmed
from tests.support import reports as made_up
from tests.support.records import make_result


@pytest.fixture
def plain() -> Report:
    """Without further seeds of the winner, and its test split never opened."""
    return made_up.report(made_up.sweep(trials=30, seed=1))


@pytest.fixture
def report(plain: Report) -> Report:
    """With further seeds of the winner, and two openings of its test split."""
    winner = plain.selection.winner
    assert winner is not None
    seeds = {seed: make_result(best_val_acc=accuracy) for seed, accuracy in ((1000, 0.60), (1001, 0.61), (1002, 0.62))}
    confirmed = Confirmed(winner.name, winner.model, "fer2013", make_result(best_val_acc=0.63), seeds)
    openings = tuple(
        Opening(str(n), 1.8e9 + n, winner.name, "w", "fer2013", "f", "t", averaging, 3589, 2000 + n, n > 0)
        for n, averaging in enumerate(("none", "flip"))
    )
    return dataclasses.replace(
        plain, choice=dataclasses.replace(plain.choice, confirmed=(confirmed,)), openings=openings
    )


def test_caveats_further_seeds_and_openings_of_the_test_split(report: Report, plain: Report) -> None:
    found, without = (certainty(shown) for shown in (report, plain))
    assert found["Warnings"] == [f"{c.message}." for c in report.choice.caveats] != []
    (seeds,) = found["Further seeds"]
    assert seeds.startswith("The winner, trial s0000001/")
    assert "mean over 3 further seeds 61.00 % (95 % interval 58.52 to 63.48 %)" in seeds
    assert "in the search it had 63.00 %, +2.00 points against the mean" in seeds
    (none,) = without["Further seeds"]
    assert "The winner is not confirmed" in none and "fersweep confirm s0000001 --trial " in none
    assert without["Test split"] == ["It was never opened, according to the records on this host."]
    count, first, second = found["Test split"]
    assert count.startswith("The test split of fer2013 was opened 2 times: report all")
    assert "55.73 % (none)" in first and "55.75 % (flip)" in second
    page = html.unescape(re.sub("</?span[^>]*>", "", render(report)))
    text = markdown(report).replace("\\", "")
    for heading, lines in found.items():
        assert all(line in page and line in text for line in (heading, *lines))
