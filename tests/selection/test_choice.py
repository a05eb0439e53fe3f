"""Choosing is pure: results made by hand, and properties over many of them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.records import TrialRecord, TrialResult, TrialState, Verdict
from fer_sweep.selection import Candidate, pareto_front, select, standard_error


def candidate(
    name: str,
    accuracy: float,
    gap: float,
    *,
    size: int = 1000,
    state: TrialState = TrialState.COMPLETE,
    n: int = 3589,
    best_epoch: int = 1,
) -> Candidate:
    result = TrialResult(
        best_val_acc=accuracy,
        best_epoch=best_epoch,
        train_acc=accuracy + gap,
        train_val_gap=gap,
        val_acc_clean=accuracy,
        macro_f1=accuracy,
        per_class_recall=(accuracy,) * 7,
        confusion_matrix=((n, 0, 0, 0, 0, 0, 0),) + ((0,) * 7,) * 6,
        epochs=1,
        parameters=size,
        seconds=1.0,
        images_per_second=1.0,
        peak_memory_mb=1.0,
        precision="fp32",
        verdict=Verdict.BALANCED,
    )
    return Candidate("s", TrialRecord(name, state, {}, {}, result=result), result)


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
