"""Means over further seeds leave the searched one out, and pairs are compared seed by seed."""

from dataclasses import replace

import pytest
from scipy import stats

from fer_sweep.selection import Confirmed, compare, select_confirmed
from tests.support.records import candidate, make_result


def confirmed(name: str, accuracies: dict[int, float], *, data: str = "fer2013", searched: float = 0.7) -> Confirmed:
    results = {seed: make_result(best_val_acc=accuracy) for seed, accuracy in accuracies.items()}
    return Confirmed(name, "simple_cnn", data, make_result(best_val_acc=searched), results)


def test_the_mean_over_further_seeds_leaves_the_searched_one_out() -> None:
    found = confirmed("s/1", {1000: 0.60, 1001: 0.62}, searched=0.90)
    assert found.accuracy is not None
    assert (found.accuracy.mean, found.optimism) == (pytest.approx(0.61), pytest.approx(0.29))
    none = confirmed("s/1", {})
    assert (none.accuracy, none.clean, none.gap, none.optimism) == (None, None, None, None)
    assert none.image_error > 0
    assert none.summary == "no further seed has a result yet"
    assert confirmed("s/1", {1: 0.6}).summary == "60.00 % with one further seed, which gives no interval"
    assert confirmed("s/1", {1: 0.60, 2: 0.61, 3: 0.62}).summary == (
        "mean over 3 further seeds 61.00 % (95 % interval 58.52 to 63.48 %)"
    )
    collapsed = replace(found, seeds={**found.seeds, 1002: make_result(verdict="collapsed")})
    assert collapsed.summary.endswith("; 1 of 3 collapsed or diverged")


def test_a_pair_is_compared_over_the_seeds_both_have() -> None:
    first = {1000: 0.60, 1001: 0.62, 1002: 0.61, 1003: 0.99}
    second = {1000: 0.58, 1001: 0.595, 1002: 0.585, 1004: 0.1}
    (found,) = compare([confirmed("a/1", first), confirmed("b/2", second)])
    assert found.seeds == (1000, 1001, 1002)
    theirs = stats.ttest_rel([first[s] for s in found.seeds], [second[s] for s in found.seeds])
    assert found.p == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("first", "second", "meaning"),
    [
        ({1: 0.60, 2: 0.605}, {1: 0.58, 2: 0.585}, "a/1 is better"),
        ({1: 0.58, 2: 0.585}, {1: 0.60, 2: 0.605}, "b/2 is better"),
        ({1: 0.60, 2: 0.62}, {1: 0.61, 2: 0.60}, "cannot tell"),
    ],
)
def test_a_comparison_says_which_is_better(first: dict[int, float], second: dict[int, float], meaning: str) -> None:
    (found,) = compare([confirmed("a/1", first), confirmed("b/2", second)])
    assert meaning in found.meaning
    assert found.is_decided == ("better" in meaning)


def test_several_comparisons_share_one_level_and_other_data_or_a_single_seed_in_common_has_none() -> None:
    three = [confirmed(f"{name}/1", {1: 0.60, 2: 0.62, 3: 0.61}) for name in "abc"]
    assert [round(found.difference.level, 4) for found in compare(three)] == [0.9833] * 3
    seeds = {1: 0.6, 2: 0.61}
    assert compare([confirmed("a/1", seeds), confirmed("b/1", seeds, data="other")]) == []
    assert compare([confirmed("a/1", seeds), confirmed("b/1", {2: 0.6, 3: 0.61})]) == []


def test_among_confirmed_trials_the_rule_goes_by_the_means() -> None:
    seeds = [confirmed("a/1", {1: 0.55, 2: 0.56}), confirmed("b/1", {1: 0.61, 2: 0.62})]
    chosen = select_confirmed([candidate("1", 0.70, sweep="a"), candidate("1", 0.62, sweep="b")], seeds).winner
    assert chosen is not None and chosen.name == "b/1"
    assert chosen.result.best_val_acc == pytest.approx(0.615)
    apart = [candidate("1", 0.7, sweep="a", fingerprint="a"), candidate("1", 0.6, sweep="b", fingerprint="b")]
    assert select_confirmed(apart, seeds).winner is None, "on different data"
