"""What reports say of how far a winner can be trusted: the same lines in HTML and Markdown."""

import dataclasses
import html

import pytest

from fer_sweep.openings import Opening
from fer_sweep.reports.certainty import certainty
from fer_sweep.reports.sources import Report
from fer_sweep.reports.tables import markdown
from fer_sweep.selection import Confirmed
from tests.support import reports as made_up
from tests.support.records import make_result


@pytest.fixture
def plain_report() -> Report:
    return made_up.report(made_up.sweep(trials=30, seed=1))


@pytest.fixture
def report(plain_report: Report) -> Report:
    """With further seeds of the winner, and two openings of its test split."""
    winner = plain_report.selection.winner
    assert winner is not None
    seeds = {seed: make_result(best_val_acc=accuracy) for seed, accuracy in ((1000, 0.60), (1001, 0.61), (1002, 0.62))}
    searched = winner.result.model_copy(update={"best_val_acc": 0.63})
    confirmed = Confirmed(winner.name, winner.model, "fer2013", searched, seeds)
    openings = tuple(
        Opening(str(n), 1.8e9 + n, winner.name, "w", "fer2013", "f", "t", averaging, 3589, 2000 + n, n > 0)
        for n, averaging in enumerate(("none", "flip"))
    )
    choice = dataclasses.replace(plain_report.choice, confirmed=(confirmed,))
    return dataclasses.replace(plain_report, choice=choice, openings=openings)


def lines(report: Report) -> dict[str, tuple[str, ...]]:
    return {part.heading: part.lines for part in certainty(report)}


def test_every_caveat_of_best_is_a_line(report: Report) -> None:
    assert report.choice.caveats
    assert lines(report)["What to be careful about"] == tuple(f"{c.message}." for c in report.choice.caveats)


def test_the_mean_over_further_seeds_stands_with_its_interval_and_the_optimism(report: Report) -> None:
    (line,) = lines(report)["Further seeds"]
    assert line.startswith("The winner, trial s0000001/")
    assert "mean over 3 further seeds 61.00 % (95 % interval 58.52 to 63.48 %)" in line
    assert "when chosen it had 63.00 %, +2.00 points against the mean" in line


def test_a_winner_without_further_seeds_is_said_to_have_none(plain_report: Report) -> None:
    (line,) = lines(plain_report)["Further seeds"]
    assert "The winner was not confirmed" in line and "fersweep confirm s0000001 --trial " in line


def test_every_opening_of_the_test_split_is_counted_and_listed(report: Report, plain_report: Report) -> None:
    count, first, second = lines(report)["Test split"]
    assert count.startswith("The test split of fer2013 was opened 2 times, and recorded so")
    assert "55.73 % (none)" in first and "55.75 % (flip)" in second
    assert lines(plain_report)["Test split"] == ("It was never opened, as far as is recorded here.",)


def test_the_lines_are_in_both_reports(report: Report) -> None:
    pytest.importorskip("plotly", reason="the HTML report needs plotly")
    from fer_sweep.reports.environment import Environment
    from fer_sweep.reports.html import render

    page = html.unescape(render(report, Environment((), "machine", "no GPU", (), "fp32")))
    text = markdown(report).replace("\\", "")
    for part in certainty(report):
        assert part.heading in page and part.heading in text
        assert all(line in page and line in text for line in part.lines)


def test_sweeps_of_different_data_crown_no_winner_in_either_report() -> None:
    pytest.importorskip("plotly", reason="the HTML report needs plotly")
    from fer_sweep.reports.environment import Environment
    from fer_sweep.reports.html import render

    one, other = made_up.sweep(trials=12), made_up.sweep("vit", trials=12, seed=1)
    records = tuple(dataclasses.replace(r, config={**r.config, "data": "ferplus"}) for r in other[0].records)
    report = made_up.report(one, (dataclasses.replace(other[0], records=records), other[1]))
    reason = "these trials were measured on different data (fer2013, ferplus), so their accuracies do not compare"
    page = render(report, Environment((), "machine", "no GPU", (), "fp32"))
    assert f"There is none: {reason}." in page and "The winner, " not in page and "winner.json" not in page
    text = markdown(report).replace("\\", "")
    assert f"None: {reason}." in text and "| winner" not in text
