"""Accuracy, recall and macro F1 from a confusion matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.training.metrics import accuracy, confusion_matrix, scores

labelled = st.integers(1, 80).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 6), min_size=n, max_size=n) for _ in range(2)])
)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(labelled)
def test_scores_agree_with_counting(pair: tuple[list[int], list[int]]) -> None:
    labels, predictions = (np.array(part) for part in pair)
    confusion = confusion_matrix(labels, predictions)
    score = scores(confusion)
    assert score.accuracy == pytest.approx(accuracy(labels, predictions))
    f1 = []
    for k in range(7):
        hits = int(((labels == k) & (predictions == k)).sum())
        occurs, predicted = int((labels == k).sum()), int((predictions == k).sum())
        assert sum(confusion[k]) == occurs
        assert score.recall[k] == pytest.approx(hits / occurs if occurs else 0.0)
        if occurs:
            f1.append(2 * hits / (occurs + predicted))
    assert score.macro_f1 == pytest.approx(np.mean(f1))


def test_scores_of_no_images_are_zero() -> None:
    nothing = np.array([], np.int64)
    assert accuracy(nothing, nothing) == 0.0
    score = scores(confusion_matrix(nothing, nothing))
    assert (score.accuracy, score.macro_f1, score.recall) == (0.0, 0.0, (0.0,) * 7)
