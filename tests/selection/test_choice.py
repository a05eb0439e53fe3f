"""Selection: which trial wins and why, on hand-made results and as properties over many of them."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.config.sweep_file import Metric
from fer_sweep.records import TrialState, Verdict
from fer_sweep.selection import Candidate, decides, select
from fer_sweep.selection.choice import gap_error
from tests.support.records import candidate

PRUNED, COMPLETE = TrialState.PRUNED, TrialState.COMPLETE
DRAWN = {"model": "simple_cnn", "data": "synthetic"}


def winner(*candidates: Candidate, max_gap: float | None = None) -> str:
    chosen = select(candidates, max_gap=max_gap).winner
    assert chosen is not None
    return chosen.record.trial_id


UNDERFIT = [  # trial, val_acc in %, gap in points, parameters, verdict
    ("3", 25.05, 2.1, 300_000, "underfit"),  # the fewest parameters, but its gap is larger than the smallest one
    ("4", 24.94, -1.1, 400_000, "collapsed"),  # 97 % of the faces called happy: the smallest signed gap
    ("7", 25.52, 0.9, 600_000, "underfit"),  # learned, and smaller than the others with a gap of about zero
    ("11", 25.32, 0.9, 600_000, "underfit"),
    ("12", 25.60, 1.9, 4_900_000, "underfit"),
    ("15", 24.94, -0.9, 400_000, "collapsed"),
]


def test_of_equal_accuracies_a_collapsed_trial_does_not_win_by_a_negative_gap() -> None:
    trials = [candidate(name, acc / 100, gap / 100, size=size, verdict=v) for name, acc, gap, size, v in UNDERFIT]
    selection = select(trials)
    assert selection.winner is not None and selection.winner.record.trial_id == "7"
    assert {c.record.trial_id for c in selection.near} == {name for name, *_ in UNDERFIT} - {"4", "15"}
    assert selection.reason == (
        "4 trials are within one standard error (0.73 points) of the best accuracy, 25.60 % in trial s/12; "
        "the gaps of 3 of them are within one standard error (1.03 points) of the smallest, "
        "and of the 2 with the fewest parameters it is the most accurate"
    )
    collapsed = [c for c in trials if c.result.verdict is Verdict.COLLAPSED]
    selection = select(collapsed)
    assert (selection.winner, selection.pareto, len(selection.ranking)) == (None, (), 2)
    assert selection.reason == "every trial collapsed"
    diverged = candidate("d", 0.3, verdict="diverged", best_epoch=2)
    assert select([*collapsed, diverged]).reason == "every trial collapsed or diverged"
    assert select([]).reason == "no trial has a result yet"
    assert select([*collapsed, candidate("s", 0.6)]).reason == "it is the only trial that can win"
    clear = "it has the best accuracy, by more than one standard error (0.82 points)"
    assert select([candidate("a", 0.6), candidate("b", 0.5)]).reason == clear


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        (candidate("noisy", 0.660, 0.30), candidate("calm", 0.655, 0.05), "calm"),  # within one standard error
        (candidate("good", 0.660, 0.30), candidate("calm", 0.640, 0.05), "good"),  # beyond it
        (candidate("big", 0.66, 0.1, size=9), candidate("small", 0.66, 0.11, size=3), "small"),  # gaps within theirs
        (candidate("big", 0.66, 0.1, size=9), candidate("small", 0.66, 0.112, size=3), "big"),
        (candidate("noise", 0.66, -0.05, size=9), candidate("small", 0.66, 0.01, size=3), "small"),  # it counts as zero
        (candidate("2", 0.660, 0.100), candidate("1", 0.659, 0.099), "2"),  # the more accurate of equals
        (candidate("10", 0.66), candidate("9", 0.66), "9"),  # the older one
        (candidate("pruned", 0.70, state=PRUNED), candidate("complete", 0.60), "complete"),
        (candidate("wide", 0.6, 0.2), candidate("diverged", 0.0, 0.0, best_epoch=0), "wide"),
    ],
)
def test_of_two_trials_wins(first: Candidate, second: Candidate, wins: str) -> None:
    assert winner(first, second) == winner(second, first) == wins


def test_trials_measured_on_different_data_have_no_winner() -> None:
    one = candidate("0", 0.60, fingerprint="a" * 64)
    selection = select([one, candidate("0", 0.50, sweep="t", fingerprint="b" * 64)])
    assert (selection.winner, selection.pareto, selection.near) == (None, (), ())
    assert selection.reason == (
        f"these trials were measured on different data (fer2013 ({'a' * 12}), fer2013 ({'b' * 12})), "
        "so their accuracies are not comparable"
    )
    assert "(fer2013, synthetic)" in select([candidate("0", 0.6), candidate("1", 0.6, config=DRAWN)]).reason
    chosen = select([one, candidate("0", 0.50, sweep="t", fingerprint="b" * 64)], anyway=True).winner
    assert chosen is not None and chosen.name == "s/0"
    assert winner(one, candidate("1", 0.50, fingerprint="a" * 64, config=DRAWN)) == "0", "one content, two names"
    assert winner(one, candidate("1", 0.50)) == "0", "of one no fingerprint is recorded"


def test_max_gap_keeps_out_what_exceeds_it_unless_all_do() -> None:
    wide, narrow = candidate("wide", 0.70, 0.3), candidate("narrow", 0.60, 0.1)
    assert winner(wide, narrow, max_gap=0.15) == "narrow"
    assert winner(wide, narrow, max_gap=0.01) == "wide"
    assert winner(wide, candidate("noise", 0.60, -0.01), max_gap=0.0) == "noise"
    assert select([wide, narrow], max_gap=0.15).reason.endswith("; only gaps of at most 15.0 points were considered")
    assert select([wide, narrow], max_gap=0.01).reason.endswith("; every gap exceeds 1.0 points")
    assert "points were considered" not in select([wide, narrow], max_gap=0.5).reason


def test_another_metric_decides_in_the_direction_of_its_goal() -> None:
    def worth(name: str, accuracy: float, value: float | None, **more: Any) -> Candidate:
        return replace(candidate(name, accuracy, **more), value=value)

    trials = [worth("a", 0.70, 0.9), worth("b", 0.60, 0.5), worth("c", 0.99, None), worth("d", 0.5, 0.4, state=PRUNED)]
    low, high = (Metric(name="val_loss", goal=goal) for goal in ("minimize", "maximize"))
    chosen = select(trials, metric=low)
    assert [c.record.trial_id for c in chosen.ranking] == ["d", "b", "a", "c"]
    assert chosen.winner is not None and chosen.winner.record.trial_id == "b"
    assert (
        chosen.reason == "it has the lowest val_loss of those that can win, 0.5; the sweep file says to minimize that"
    )
    assert {c.record.trial_id for c in select(trials, metric=low, max_gap=0.1).near} == {"b"}
    most = select(trials, metric=high)
    assert most.winner is not None and most.winner.record.trial_id == "a"
    lost = select([worth("x", 0.9, None)], metric=low)
    assert lost.winner is None and "no trial has a value of val_loss" in lost.reason
    assert [decides(metric) for metric in (None, low, Metric(name="val_acc", goal="maximize"))] == [False, True, False]


CANDIDATES = st.lists(
    st.builds(
        lambda accuracy, gap, size, state, verdict: (accuracy, gap, {"size": size, "state": state, "verdict": verdict}),
        st.sampled_from([0.3, 0.5, 0.505, 0.51, 0.6]) | st.floats(0, 1),  # few values make ties
        st.sampled_from([-0.01, 0.0, 0.05, 0.2]) | st.floats(-0.5, 1),
        st.integers(1, 10),
        st.sampled_from([COMPLETE, PRUNED]),
        st.sampled_from(["balanced", "balanced", "diverged", "collapsed"]),
    ),
    min_size=1,
    max_size=16,
).map(lambda drawn: [candidate(str(number), acc, gap, **more) for number, (acc, gap, more) in enumerate(drawn)])


@settings(derandomize=True, deadline=None)
@given(CANDIDATES, st.sampled_from([None, 0.0, 0.1]), st.randoms(use_true_random=False))
def test_the_winner_follows_the_rule(candidates: list[Candidate], max_gap: float | None, random: Random) -> None:
    selection = select(candidates, max_gap=max_gap)
    assert select(random.sample(candidates, len(candidates)), max_gap=max_gap) == selection, "in whatever order"
    sound = [c for c in candidates if c.result.verdict is Verdict.BALANCED]
    if not sound:
        assert selection.winner is None and selection.pareto == ()
        return
    eligible = [c for c in sound if c.record.state is COMPLETE] or sound
    assert set(map(id, selection.eligible)) == set(map(id, eligible))
    among = [c for c in eligible if max_gap is None or c.gap <= max_gap] or eligible
    best = max(c.result.best_val_acc for c in among)
    near = [c for c in among if c.result.best_val_acc >= best - selection.standard_error]
    assert set(map(id, selection.near)) == set(map(id, near))
    calmest = min(near, key=lambda c: (c.gap, gap_error(c)))
    equal = [c for c in near if c.gap <= calmest.gap + gap_error(calmest)]
    assert selection.winner in equal
    assert selection.winner.result.parameters == min(c.result.parameters for c in equal)


@settings(derandomize=True, deadline=None)
@given(CANDIDATES)
def test_the_pareto_front_is_what_nothing_beats(candidates: list[Candidate]) -> None:
    selection = select(candidates)
    values = {(c.result.best_val_acc, c.gap) for c in selection.eligible}
    front = {(c.result.best_val_acc, c.gap) for c in selection.pareto}
    assert all(c in selection.eligible for c in selection.pareto)
    for accuracy, gap in values:
        is_beaten = any(a >= accuracy and g <= gap and (a, g) != (accuracy, gap) for a, g in values)
        assert is_beaten != ((accuracy, gap) in front)
