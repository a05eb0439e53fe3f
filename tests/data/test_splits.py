"""Made splits: no copy on both sides, class by class, the same each time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.data.cache import VAL_SHARE, complete_splits
from fer_sweep.data.dataset import POOLED, Split


@settings(derandomize=True, deadline=None, database=None)
@given(st.integers(200, 2000), st.floats(0.0, 0.5), st.integers(0, 100))
def test_validation_split_divides_no_group_and_keeps_the_proportions(count, copies, seed):
    generator = np.random.default_rng(seed)
    labels, groups = generator.integers(0, 7, count), np.arange(count)
    copied = generator.random(count) < copies  # a few of them with another label
    groups[copied] = generator.integers(0, count // 4, copied.sum())
    start = np.zeros(count, np.uint8)
    splits, notes = complete_splits("a", labels, start, groups)
    training, val = splits == Split.TRAIN, splits == Split.VAL
    assert not set(groups[training]) & set(groups[val])
    assert abs(val.mean() - VAL_SHARE) < 0.06
    assert (start == 0).all()  # the caller's array is untouched
    assert "no validation split" in notes[0]
    assert (complete_splits("a", labels, start, groups)[0] == splits).all()


def test_every_class_gives_its_share_and_of_a_pooled_test_split_half():
    labels, groups = np.repeat(np.arange(7), [4000, 440, 4100, 7200, 4800, 3200, 5000]), np.arange(28_740)
    made, _ = complete_splits("a", labels, np.zeros(len(labels), np.uint8), groups)
    pooled = np.where(groups % 5 == 0, POOLED, Split.TRAIN).astype(np.uint8)
    halved, notes = complete_splits("a", labels, pooled, groups)
    assert (halved[pooled == Split.TRAIN] == Split.TRAIN).all()
    for code in range(7):
        assert (made[labels == code] == Split.VAL).mean() == pytest.approx(VAL_SHARE, abs=0.001)
        for split in (Split.VAL, Split.TEST):
            assert (halved[labels == code] == split).mean() == pytest.approx(0.1, abs=0.003)
    assert "not FER2013's PublicTest and PrivateTest" in notes[0]


@pytest.mark.parametrize("given", [[0, 0, 1, 2], [0, 1]])
def test_given_splits_stay_as_they_are_and_a_missing_test_split_is_noted(given):
    splits, notes = complete_splits(
        "a", np.zeros(len(given), np.int64), np.array(given, np.uint8), np.arange(len(given))
    )
    assert splits.tolist() == given
    assert notes == (() if 2 in given else ("there is no test split (FER2013's PrivateTest)",))
