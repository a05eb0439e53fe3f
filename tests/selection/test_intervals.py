"""Intervals against scipy's own, and what it takes to tell two accuracies apart against simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fer_sweep.selection import intervals

steady = settings(derandomize=True, deadline=None, max_examples=60)


@steady
@given(st.integers(1, 4000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(pair: tuple[int, int]) -> None:
    right, n = pair
    low, high = intervals.wilson(right, n)
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@steady
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_of_a_mean_is_scipys(values: list[float], level: float) -> None:
    found = intervals.mean_interval(values, level=level)
    assert found.low is not None and found.high is not None
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    if found.sd and found.sd > 1e-9:
        theirs = stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == pytest.approx(theirs, abs=1e-9)
        assert intervals.t_test(found) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, abs=1e-9)


def test_a_single_measurement_has_no_interval_and_equal_ones_leave_no_doubt() -> None:
    found = intervals.mean_interval([0.6])
    assert (found.mean, found.sd, found.low, found.high) == (0.6, None, None, None)
    assert intervals.t_test(intervals.mean_interval([0.0, 0.0])) == 1.0
    assert intervals.t_test(intervals.mean_interval([0.5, 0.5])) == 0.0


def test_as_many_images_or_seeds_as_needed_and_no_fewer() -> None:
    p, q = 0.66, 0.64
    n = intervals.images_needed(p, q)
    assert n is not None
    assert intervals.chance_difference(p, n, q, n) <= p - q < intervals.chance_difference(p, n - 10, q, n - 10)
    few, many = (intervals.seeds_needed(p, other, 3589) for other in (0.63, 0.655))
    assert few is not None and many is not None and 2 <= few < many
    assert intervals.images_needed(p, p) is intervals.seeds_needed(p, p, 3589) is None
    assert intervals.seeds_needed(p, 0.65999, 3589) is None, "nobody trains so many"
