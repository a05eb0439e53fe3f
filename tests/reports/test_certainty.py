"""What reports say of how far a winner can be trusted: the same lines in HTML and Markdown."""

import dataclasses
import html
import re

import pytest

from fer_sweep.openings import Opening
from fer_sweep.reports.html import render
from fer_sweep.reports.sources import Report
from fer_sweep.reports.summary import BY_ARCHITECTURE, answer, architectures, certainty
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
    (caveat,) = report.choice.caveats
    assert [line.lower() for line in found["Caveats"]] == [report.named(f"{caveat.message}.").lower()]
    assert certainty(report, most=0)["Caveats"] == ["1 more: fersweep best s0000001 --all."]
    (seeds,) = found["Further seeds"]
    assert seeds.startswith(f"The winner, {report.label(report.selection.winner.name)}: ")
    assert "mean over 3 further seeds 61.00 % (95 % interval 58.52 to 63.48 %)" in seeds
    assert "in the search it had 63.00 %, +2.00 points against the mean" in seeds
    (none,) = without["Further seeds"]
    assert "The winner is not confirmed" in none and "fersweep confirm s0000001 --trial " in none
    assert without["Test split"] == ["It was never opened, according to the records on this host."]
    count, first, second = found["Test split"]
    assert count.startswith("The test split of fer2013 was opened 2 times: report all")
    assert first.endswith("55.73 %.") and "55.75 % (flip)" in second
    assert not any("s0000001/" in line for lines in found.values() for line in lines), "names, not ids"
    page = html.unescape(re.sub("</?span[^>]*>", "", render(report)))
    text = markdown(report).replace("\\", "")
    for heading, lines in found.items():
        assert all(line in page and line in text for line in (heading, *lines))


def test_every_report_begins_with_the_same_answer(report: Report, plain: Report) -> None:
    found, without = answer(report), answer(plain)
    assert "61.00 % (95 % interval 58.52 to 63.48 %)" in found["Confirmed"]
    assert found["Test split"].startswith("55.73 % (95 % interval ") and "flip), " not in found["Test split"][:40]
    assert "opened 2 times" in found["Test split"]
    assert without["Confirmed"].startswith("not yet: fersweep confirm s0000001 --trial ")
    assert without["Test split"].startswith("never opened") and "fingerprint not recorded" in without["Data set"]
    page = html.unescape(re.sub("</?span[^>]*>", "", render(report)))
    top = page[page.index('<section id="winner"') : page.index('<section id="parameters"')]
    assert "61.00 %" in top and "55.75 %" in top and "opened 2 times" in top and found["Verdict"] in top
    text = markdown(report).replace("\\", "")
    assert all(f"- **{name}**: {words}" in text for name, words in found.items())


def test_a_row_for_each_architecture(report: Report) -> None:
    assert architectures(report) == [], "one sweep of one architecture has nothing to compare"
    sweeps = [made_up.sweep(model, trials=12, seed=seed) for seed, model in enumerate(("simple_cnn", "vit"))]
    two = made_up.report(*sweeps)
    rows = architectures(two)
    assert [(row.model, row.is_overall) for row in rows] == [("vit", True), ("simple_cnn", False)]
    for row in rows:
        winner = two.choice.by_model[row.model].winner
        assert winner is not None
        shown = dict(zip(BY_ARCHITECTURE, row.cells, strict=True))
        assert shown["winner"] == f"{row.model}/{winner.record.trial_id}"
        assert (shown["confirmed"], shown["test"], shown["epochs"]) == ("not yet", "not yet", str(winner.result.epochs))
    page, text = render(two), markdown(two).replace("\\", "")
    assert all(cell in page and cell in text for row in rows for cell in row.cells)


def test_sweeps_that_share_a_name_have_their_ids_beside_it() -> None:
    three = [made_up.sweep(trials=8, seed=seed, name=name) for seed, name in enumerate(("a", "a", ""))]
    report = made_up.report(*three)
    assert list(report.names.values()) == ["a (s0000000)", "a (s0000001)", "resnet18"]
    assert report.label("s0000002/3") == "resnet18/3"
    assert report.named("see s0000001/3, not as0000001/3; fersweep confirm s0000001") == (
        "see a (s0000001)/3, not as0000001/3; fersweep confirm s0000001"
    )
