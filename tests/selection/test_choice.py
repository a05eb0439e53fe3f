"""Selection: which trial wins and why, on hand-made results and as properties over many of them."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.records import TrialState, Verdict
from fer_sweep.selection import Candidate, gap_error, pareto_front, select, select_each, standard_error
from tests.support.records import candidate


def winner(*candidates: Candidate, max_gap: float | None = None) -> str:
    chosen = select(candidates, max_gap=max_gap).winner
    assert chosen is not None
    return chosen.record.trial_id


def test_fer2013s_standard_error_is_the_published_one() -> None:
    assert standard_error(candidate("a", 0.73, 0.1).result) == pytest.approx(0.0074, abs=0.0001)


def test_the_standard_error_of_a_gap_adds_both_samples() -> None:
    found = gap_error(candidate("a", 0.66, 0.06))
    assert found == pytest.approx(math.sqrt(0.66 * 0.34 / 3589 + 0.72 * 0.28 / 3589))
    assert found == pytest.approx(0.011, abs=0.0005)


SIXTEEN = [  # trial, val_acc in %, gap in points, parameters, verdict
    ("0", 25.55, 0.9, 1_200_000, "underfit"),
    ("1", 25.41, 3.0, 4_900_000, "underfit"),
    ("2", 24.94, 0.3, 4_900_000, "underfit"),
    ("3", 25.05, 2.1, 300_000, "underfit"),  # the fewest parameters, but its gap is larger than the smallest one
    ("4", 24.94, -1.1, 400_000, "collapsed"),  # 97 % of the faces called happy: the smallest signed gap
    ("5", 25.10, -0.6, 2_400_000, "underfit"),
    ("6", 25.02, 1.5, 1_200_000, "underfit"),
    ("7", 25.52, 0.9, 600_000, "underfit"),  # learned, and smaller than the others with a gap of about zero
    ("8", 25.24, 0.0, 2_400_000, "underfit"),
    ("9", 25.30, 4.2, 600_000, "underfit"),
    ("10", 24.97, 0.1, 1_200_000, "underfit"),
    ("11", 25.32, 0.9, 600_000, "underfit"),
    ("12", 25.60, 1.9, 4_900_000, "underfit"),
    ("13", 24.91, 0.2, 1_200_000, "underfit"),
    ("14", 25.05, -0.2, 4_900_000, "underfit"),
    ("15", 24.94, -0.9, 400_000, "collapsed"),
]


def sixteen() -> list[Candidate]:
    return [
        candidate(name, accuracy / 100, gap / 100, size=size, verdict=verdict)
        for name, accuracy, gap, size, verdict in SIXTEEN
    ]


def test_of_sixteen_equal_accuracies_a_collapsed_trial_does_not_win_by_a_negative_gap() -> None:
    selection = select(sixteen())
    assert selection.winner is not None and selection.winner.record.trial_id == "7"
    assert {c.record.trial_id for c in selection.near} == {name for name, *_ in SIXTEEN} - {"4", "15"}
    assert selection.reason == (
        "14 trials are within one standard error (0.73 points) of the best accuracy, 25.60 % in trial s/12; "
        "the gaps of 9 of them are within one standard error (1.02 points) of the smallest, "
        "and of the 2 with the fewest parameters it is the most accurate"
    )


def test_without_the_trials_that_learned_there_is_no_winner() -> None:
    collapsed = [c for c in sixteen() if c.result.verdict is Verdict.COLLAPSED]
    selection = select(collapsed)
    assert (selection.winner, selection.pareto, len(selection.ranking)) == (None, (), 2)
    assert selection.reason == "every trial collapsed"
    diverged = candidate("d", 0.3, verdict="diverged", best_epoch=2)
    assert select([*collapsed, diverged]).reason == "every trial collapsed or diverged"


def test_within_one_standard_error_the_smaller_gap_wins() -> None:
    assert winner(candidate("noisy", 0.660, 0.30), candidate("calm", 0.655, 0.05)) == "calm"


def test_beyond_one_standard_error_accuracy_wins() -> None:
    assert winner(candidate("good", 0.660, 0.30), candidate("calm", 0.640, 0.05)) == "good"


def test_gaps_within_their_standard_error_go_to_the_smaller_model() -> None:
    assert winner(candidate("big", 0.66, 0.1, size=9), candidate("small", 0.66, 0.11, size=3)) == "small"
    assert winner(candidate("big", 0.66, 0.1, size=9), candidate("small", 0.66, 0.112, size=3)) == "big"


def test_a_gap_below_zero_counts_as_zero() -> None:
    assert winner(candidate("noise", 0.66, -0.05, size=9), candidate("zero", 0.66, 0.0, size=3)) == "zero"
    assert winner(candidate("noise", 0.66, -0.05, size=9), candidate("small", 0.66, 0.01, size=3)) == "small"


def test_equal_gaps_and_sizes_go_to_the_best_accuracy_and_then_to_the_older_trial() -> None:
    assert winner(candidate("2", 0.660, 0.100), candidate("1", 0.659, 0.099)) == "2"
    assert winner(candidate("10", 0.66), candidate("9", 0.66)) == "9"


def test_a_pruned_trial_is_ranked_but_wins_only_alone() -> None:
    pruned = candidate("pruned", 0.70, 0.1, state=TrialState.PRUNED)
    assert winner(pruned, candidate("complete", 0.60, 0.1)) == "complete"
    assert winner(pruned) == "pruned"
    assert select([pruned, candidate("complete", 0.60, 0.1)]).ranking[0] is pruned


def test_the_pareto_front_holds_complete_trials_only_unless_there_is_none() -> None:
    pruned = candidate("pruned", 0.70, 0.0, state=TrialState.PRUNED)
    complete = candidate("complete", 0.60, 0.1)
    assert select([pruned, complete]).pareto == (complete,)
    assert select([pruned]).pareto == (pruned,)


@pytest.mark.parametrize("verdict", ["diverged", "collapsed"])
def test_a_failed_trial_never_wins_nor_stands_on_the_pareto_front(verdict: str) -> None:
    failed = candidate("failed", 0.61, 0.0, verdict=verdict, best_epoch=2)
    pruned = candidate("pruned", 0.60, 0.2, state=TrialState.PRUNED)
    selection = select([failed, pruned])
    assert (selection.winner, selection.pareto) == (pruned, (pruned,))
    assert select([failed]).winner is None


def test_trials_measured_on_different_data_have_no_winner() -> None:
    one = candidate("0", 0.60, fingerprint="a" * 64)
    other = candidate("0", 0.50, sweep="t", fingerprint="b" * 64)
    selection = select([one, other])
    assert (selection.winner, selection.pareto, selection.near) == (None, (), ())
    assert selection.reason == (
        f"these trials were measured on different data (fer2013 ({'a' * 12}), fer2013 ({'b' * 12})), "
        "so their accuracies do not compare"
    )
    assert "(fer2013, synthetic)" in select([candidate("0", 0.6), drawn]).reason


drawn = candidate("1", 0.6, config={"model": "simple_cnn", "data": "synthetic"})


def test_the_same_data_under_two_names_or_without_a_recorded_fingerprint_compares() -> None:
    named = {"model": "simple_cnn", "data": "mine"}
    same = [candidate("0", 0.60, fingerprint="a"), candidate("1", 0.50, fingerprint="a", config=named)]
    assert winner(*same) == "0"
    assert winner(candidate("0", 0.60, fingerprint="a"), candidate("1", 0.50)) == "0"


def test_each_architecture_has_a_winner_and_a_front_of_its_own() -> None:
    small = [candidate("a", 0.58, sweep="s"), candidate("b", 0.50, sweep="s")]
    large = [candidate("c", 0.66, sweep="r", config={"model": "resnet18", "data": "fer2013"})]
    each = select_each([*small, *large])
    assert list(each) == ["resnet18", "simple_cnn"]
    assert [found.winner for found in each.values()] == [large[0], small[0]]
    assert select([*small, *large]).winner == large[0]
    assert each["simple_cnn"].pareto == (small[0],)


def test_max_gap_keeps_out_what_exceeds_it_unless_all_do() -> None:
    wide, narrow = candidate("wide", 0.70, 0.3), candidate("narrow", 0.60, 0.1)
    assert winner(wide, narrow, max_gap=0.15) == "narrow"
    assert winner(wide, narrow, max_gap=0.01) == "wide"
    assert select([wide, narrow], max_gap=0.15).reason.endswith("; only gaps of at most 15.0 points were considered")
    assert select([wide, narrow], max_gap=0.01).reason.endswith("; every gap exceeds 1.0 points")
    assert "points were considered" not in select([wide, narrow], max_gap=0.5).reason


def test_a_negative_gap_meets_a_max_gap_of_zero() -> None:
    assert winner(candidate("wide", 0.70, 0.3), candidate("noise", 0.60, -0.01), max_gap=0.0) == "noise"


def test_a_trial_that_diverged_at_once_has_no_gap_to_win_with() -> None:
    diverged = candidate("diverged", 0.0, 0.0, best_epoch=0)
    assert winner(candidate("wide", 0.6, 0.2), diverged, max_gap=0.15) == "wide"
    assert len(select([candidate("wide", 0.6, 0.2), diverged]).pareto) == 1
    assert select([diverged]).winner is None


def test_nothing_to_choose_from() -> None:
    selection = select([])
    assert selection.winner is None
    assert selection.reason


STATES = (TrialState.COMPLETE, TrialState.PRUNED)
MIXED = st.lists(
    st.tuples(
        # From few values, so that there are ties.
        st.sampled_from([0.3, 0.5, 0.505, 0.51, 0.6]),
        st.sampled_from([-0.01, 0.0, 0.05, 0.2]),
        st.sampled_from([10, 1000]),
        st.sampled_from(STATES),
        st.sampled_from(["balanced", "diverged", "collapsed"]),
    ),
    min_size=1,
    max_size=12,
)
CANDIDATES = st.lists(st.tuples(st.floats(0, 1), st.floats(-0.5, 1), st.integers(1, 10)), min_size=1, max_size=20)


@settings(derandomize=True, deadline=None)
@given(CANDIDATES)
def test_the_winner_is_the_smallest_of_those_near_in_accuracy_and_gap(raw: list[tuple[float, float, int]]) -> None:
    candidates = [candidate(str(n), acc, gap, size=size) for n, (acc, gap, size) in enumerate(raw)]
    selection = select(candidates)
    best = max(c.result.best_val_acc for c in candidates)
    assert selection.winner is not None
    assert selection.winner.result.best_val_acc >= best - selection.standard_error
    near = [c for c in candidates if c.result.best_val_acc >= best - selection.standard_error]
    assert set(map(id, selection.near)) == set(map(id, near))
    calmest = min(near, key=lambda c: (c.gap, gap_error(c)))
    equal = [c for c in near if c.gap <= calmest.gap + gap_error(calmest)]
    assert selection.winner in equal
    assert selection.winner.result.parameters == min(c.result.parameters for c in equal)


@settings(derandomize=True, deadline=None)
@given(CANDIDATES)
def test_the_pareto_front_is_what_nothing_beats(raw: list[tuple[float, float, int]]) -> None:
    candidates = [candidate(str(n), acc, gap) for n, (acc, gap, _) in enumerate(raw)]
    selection = select(candidates)
    assert selection.pareto == pareto_front(selection.ranking)

    def beaten(c: Candidate) -> bool:
        return any(
            o.result.best_val_acc >= c.result.best_val_acc
            and o.gap <= c.gap
            and (o.result.best_val_acc, o.gap) != (c.result.best_val_acc, c.gap)
            for o in candidates
        )

    for c in selection.pareto:
        assert not beaten(c)
    front = {(c.result.best_val_acc, c.gap) for c in selection.pareto}
    for c in candidates:
        assert not c.is_sound or beaten(c) or (c.result.best_val_acc, c.gap) in front
    assert not math.isnan(selection.standard_error)


def mixed(raw: list[tuple[float, float, int, TrialState, str]]) -> list[Candidate]:
    return [
        candidate(str(number), accuracy, gap, size=size, state=state, verdict=verdict)
        for number, (accuracy, gap, size, state, verdict) in enumerate(raw)
    ]


@settings(derandomize=True, deadline=None)
@given(MIXED, st.randoms(use_true_random=False))
def test_the_order_in_which_candidates_come_does_not_matter(
    raw: list[tuple[float, float, int, TrialState, str]], random: Random
) -> None:
    candidates = mixed(raw)
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert select(shuffled) == select(candidates)


@settings(derandomize=True, deadline=None)
@given(MIXED, st.sampled_from([None, 0.0, 0.1]))
def test_only_sound_trials_win_and_complete_feasible_ones_before_others(
    raw: list[tuple[float, float, int, TrialState, str]], max_gap: float | None
) -> None:
    candidates = mixed(raw)
    selection = select(candidates, max_gap=max_gap)
    chosen = selection.winner
    sound = [c for c in candidates if c.result.verdict is Verdict.BALANCED]
    if not sound:
        assert chosen is None and selection.pareto == ()
        return
    assert chosen in sound and chosen in selection.near and chosen in selection.eligible
    assert all(c in sound for c in selection.pareto)
    complete = [c for c in sound if c.record.state is TrialState.COMPLETE]
    if complete:
        assert chosen in complete
        assert all(c in complete for c in selection.pareto)
    feasible = [c for c in complete or sound if max_gap is None or c.gap <= max_gap]
    assert not feasible or chosen in feasible
