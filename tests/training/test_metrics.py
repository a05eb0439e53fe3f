"""Accuracy, recall and macro F1 from a confusion matrix."""

import numpy as np
import pytest

from fer_sweep.training.metrics import accuracy, confusion_matrix, scores


@pytest.mark.parametrize("count", [0, 1, 5, 80])
def test_scores_agree_with_counting(count):
    labels, predictions = np.random.default_rng(count).integers(0, 7, (2, count))
    confusion = confusion_matrix(labels, predictions)
    score = scores(confusion)
    assert (
        score.accuracy == accuracy(labels, predictions) == pytest.approx((labels == predictions).sum() / max(count, 1))
    )
    f1 = []
    for k in range(7):
        hits = int(((labels == k) & (predictions == k)).sum())
        occurs, predicted = int((labels == k).sum()), int((predictions == k).sum())
        assert sum(confusion[k]) == occurs
        assert score.recall[k] == pytest.approx(hits / max(occurs, 1))
        if occurs:
            f1.append(2 * hits / (occurs + predicted))
    assert score.macro_f1 == pytest.approx(np.mean(f1) if f1 else 0.0)
