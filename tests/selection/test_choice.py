"""Choosing is pure: results made by hand, and properties over many of them."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.records import TrialState, Verdict
from fer_sweep.selection import Candidate, pareto_front, select, select_each, standard_error
from tests.support.records import candidate


def winner(*candidates: Candidate, max_gap: float | None = None) -> str:
    chosen = select(candidates, max_gap=max_gap).winner
    assert chosen is not None
    return chosen.record.trial_id


def test_fer2013s_standard_error_is_the_published_one() -> None:
    assert standard_error(candidate("a", 0.73, 0.1).result) == pytest.approx(0.0074, abs=0.0001)


def test_within_one_standard_error_the_smaller_gap_wins() -> None:
    assert winner(candidate("noisy", 0.660, 0.30), candidate("calm", 0.655, 0.05)) == "calm"


def test_beyond_one_standard_error_accuracy_wins() -> None:
    assert winner(candidate("good", 0.660, 0.30), candidate("calm", 0.640, 0.05)) == "good"


def test_equal_gaps_go_to_the_smaller_model() -> None:
    assert winner(candidate("big", 0.66, 0.1, size=9), candidate("small", 0.66, 0.1, size=3)) == "small"


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


def test_a_trial_that_diverged_late_wins_only_where_there_is_no_other() -> None:
    diverged = candidate("diverged", 0.61, 0.0, verdict="diverged", best_epoch=2)
    assert winner(diverged, candidate("sound", 0.60, 0.2)) == "sound"
    assert winner(diverged) == "diverged"


def test_each_architecture_has_a_winner_and_a_front_of_its_own() -> None:
    small = [candidate("a", 0.58, sweep="s"), candidate("b", 0.50, sweep="s")]
    large = [candidate("c", 0.66, sweep="r", config={"model": "resnet18"})]
    each = select_each([*small, *large])
    assert list(each) == ["resnet18", "simple_cnn"]
    assert [found.winner for found in each.values()] == [large[0], small[0]]
    assert select([*small, *large]).winner == large[0]
    assert each["simple_cnn"].pareto == (small[0],)


def test_max_gap_keeps_out_what_exceeds_it_unless_all_do() -> None:
    wide, narrow = candidate("wide", 0.70, 0.3), candidate("narrow", 0.60, 0.1)
    assert winner(wide, narrow, max_gap=0.15) == "narrow"
    assert winner(wide, narrow, max_gap=0.01) == "wide"


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
        st.sampled_from(["balanced", "diverged"]),
    ),
    min_size=1,
    max_size=12,
)
CANDIDATES = st.lists(st.tuples(st.floats(0, 1), st.floats(-0.5, 1), st.integers(1, 10)), min_size=1, max_size=20)


@settings(derandomize=True, deadline=None)
@given(CANDIDATES)
def test_the_winner_is_near_the_best_and_no_near_one_has_a_smaller_gap(raw: list[tuple[float, float, int]]) -> None:
    candidates = [candidate(str(n), acc, gap, size=size) for n, (acc, gap, size) in enumerate(raw)]
    selection = select(candidates)
    best = max(c.result.best_val_acc for c in candidates)
    assert selection.winner is not None
    assert selection.winner.result.best_val_acc >= best - selection.standard_error
    near = [c for c in candidates if c.result.best_val_acc >= best - selection.standard_error]
    assert selection.winner.result.train_val_gap == min(c.result.train_val_gap for c in near)


@settings(derandomize=True, deadline=None)
@given(CANDIDATES)
def test_the_pareto_front_is_what_nothing_beats(raw: list[tuple[float, float, int]]) -> None:
    candidates = [candidate(str(n), acc, gap) for n, (acc, gap, _) in enumerate(raw)]
    selection = select(candidates)
    assert selection.pareto == pareto_front(selection.ranking)

    def beaten(c: Candidate) -> bool:
        return any(
            o.result.best_val_acc >= c.result.best_val_acc
            and o.result.train_val_gap <= c.result.train_val_gap
            and (o.result.best_val_acc, o.result.train_val_gap) != (c.result.best_val_acc, c.result.train_val_gap)
            for o in candidates
        )

    for c in selection.pareto:
        assert not beaten(c)
    front = {(c.result.best_val_acc, c.result.train_val_gap) for c in selection.pareto}
    for c in candidates:
        assert beaten(c) or (c.result.best_val_acc, c.result.train_val_gap) in front
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
def test_no_feasible_complete_trial_within_one_standard_error_dominates_the_winner(
    raw: list[tuple[float, float, int, TrialState, str]], max_gap: float | None
) -> None:
    candidates = mixed(raw)
    selection = select(candidates, max_gap=max_gap)
    chosen = selection.winner
    assert chosen is not None
    assert chosen in selection.near and chosen in selection.eligible
    complete = [c for c in candidates if c.record.state is TrialState.COMPLETE]
    if complete:
        assert chosen.record.state is TrialState.COMPLETE
        assert all(c.record.state is TrialState.COMPLETE for c in selection.pareto)
    sound = [c for c in complete if c.result.verdict is not Verdict.DIVERGED]
    feasible = [c for c in sound if max_gap is None or c.result.train_val_gap <= max_gap]
    best = max((c.result.best_val_acc for c in feasible), default=0.0)
    for other in feasible:
        if other.result.best_val_acc >= best - selection.standard_error:
            theirs = (other.result.train_val_gap, other.result.parameters, -other.result.best_val_acc)
            ours = (chosen.result.train_val_gap, chosen.result.parameters, -chosen.result.best_val_acc)
            assert ours <= theirs
