"""Which images a trial trains on, validates on and measures its gap on; their batches and scores."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import DatasetInfo, FaceDataset, Split, count_classes
from fer_sweep.errors import ConfigError, DataError
from fer_sweep.models import build_model
from fer_sweep.records import CLASSES, FER2013
from fer_sweep.training.evaluation import accuracy, confusion_matrix, evaluate, scores
from fer_sweep.training.faces import Faces, batches
from fer_sweep.training.samples import choose_samples
from tests.training.conftest import small


def dataset_of(labels, splits, groups=None):
    """A data set without pictures; in ``groups``, copies of a picture have the same number."""
    labels, splits = np.array(labels, np.int64), np.array(splits, np.uint8)
    info = DatasetInfo(
        name="made", source="", layout="", fingerprint="0", counts=count_classes(labels, splits, CLASSES),
        official_split=False, created=0.0,
    )  # fmt: skip
    groups = np.arange(len(labels)) if groups is None else np.array(groups)
    images = np.zeros((len(labels), 48, 48), np.uint8)
    return FaceDataset(name="made", info=info, images=images, labels=labels, splits=splits, groups=groups)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 60), min_size=7, max_size=7), share=st.floats(0.1, 1.0), seed=st.integers(0, 99))
def test_train_samples_keep_the_proportions_of_the_classes(sizes, share, seed):
    labels = np.append(np.random.default_rng(seed).permutation(np.repeat(np.arange(7), sizes)), [0, 1])
    dataset = dataset_of(labels, [Split.TRAIN] * (len(labels) - 2) + [Split.VAL] * 2)
    count = max(7, round(share * sum(sizes)))
    chosen = choose_samples(dataset, small(train_samples=count)).train
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    assert (dataset.splits[chosen] == Split.TRAIN).all()
    # Each class is off its share of a common cut by half an image at most, and that cut by half an image a class.
    shares = np.array(sizes) / sum(sizes)
    assert (np.abs(np.bincount(labels[chosen], minlength=7) - shares * count) <= 0.5 + 3.5 * shares + 1e-9).all()
    assert (choose_samples(dataset, small(train_samples=count, seed=9)).train == chosen).all()
    if count > 7:
        assert set(choose_samples(dataset, small(train_samples=count - 1)).train) < set(chosen)


def test_copies_of_validation_images_can_be_dropped():
    dataset = dataset_of([0] * 7, [0, 0, 0, 0, 1, 1, 2], groups=[5, 6, 7, 8, 6, 9, 5])
    assert choose_samples(dataset, small()).train.tolist() == [0, 1, 2, 3]
    samples = choose_samples(dataset, small(drop_val_copies=True))
    assert samples.train.tolist() == [0, 2, 3]
    assert samples.clean.tolist() == [False, True]


@pytest.mark.parametrize("seed", [0, 1])
def test_gap_sample_is_as_large_as_validation_and_has_every_class(seed):
    # A sample drawn with the generator that had shuffled the faces once took a single class.
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(7), 100))
    dataset = dataset_of([*labels, *[0] * 70], [0] * 700 + [1] * 70)
    samples = choose_samples(dataset, small())
    assert len(samples.gap) == len(samples.val) == 70
    assert set(samples.gap) < set(samples.train)
    assert np.bincount(labels[samples.gap]).tolist() == [10] * 7
    assert np.corrcoef(samples.gap, np.arange(70))[0, 1] > 0.9, "spread over the whole split"
    few = choose_samples(dataset, small(train_samples=10))
    assert few.gap.tolist() == few.train.tolist()


def test_too_little_data_is_refused():
    with pytest.raises(DataError, match="0 validation images"):
        choose_samples(dataset_of([0] * 10, [0] * 10), small())
    with pytest.raises(ConfigError, match="10 is more than the 9 training"):
        choose_samples(dataset_of([0] * 10, [0] * 9 + [1]), small(train_samples=10))


def faces_of(dataset):
    return Faces(dataset, choose_samples(dataset, small()), torch.device("cpu"))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(count=st.integers(2, 300), size=st.integers(2, 64))
def test_batches_cover_all_but_a_single_last_image(count, size):
    parts = list(batches(count, size))
    covered = [index for part in parts for index in range(part.start, part.stop)]
    assert covered == list(range(count - 1 if count % size == 1 else count))
    assert all(2 <= part.stop - part.start <= size for part in parts)


def test_images_are_normalised_by_the_training_split():
    dataset = open_dataset("tiny")
    faces = faces_of(dataset)
    batch = faces.batch(faces.train)
    assert (batch.shape, batch.dtype) == ((70, 1, 48, 48), torch.float32)
    assert float(batch.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(batch.std()) == pytest.approx(1.0, abs=1e-4)
    pixel = (int(dataset.images[75, 3, 4]) - faces.mean) / faces.std
    assert float(faces.batch(torch.tensor([75]))[0, 0, 3, 4]) == pytest.approx(pixel, rel=1e-5)
    grey = faces_of(dataclasses.replace(dataset, images=np.full(dataset.images.shape, 7, np.uint8)))
    assert not grey.batch(grey.train).any(), "a single grey level is zero"


def test_evaluation_uses_evaluation_mode_and_restores_training_mode():
    faces = faces_of(open_dataset("tiny"))
    network = build_model(small(dropout=0.9), FER2013).train()
    loss, predictions = evaluate(network, faces, faces.val, "fp32")
    assert network.training
    with torch.no_grad():
        logits = network.eval()(faces.batch(faces.val))
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, faces.labels[faces.val])), rel=1e-5)
    assert (predictions == logits.argmax(1).numpy()).all()


@pytest.mark.parametrize("count", [0, 1, 5, 80])
def test_scores_agree_with_counting(count):
    labels, predictions = np.random.default_rng(count).integers(0, 7, (2, count))
    confusion = confusion_matrix(labels, predictions, 7)
    macro_f1, recall = scores(confusion)
    assert accuracy(labels, predictions) == pytest.approx((labels == predictions).sum() / max(count, 1))
    f1 = []
    for k in range(7):
        hits = int(((labels == k) & (predictions == k)).sum())
        occurs, predicted = int((labels == k).sum()), int((predictions == k).sum())
        assert sum(confusion[k]) == occurs
        assert recall[k] == pytest.approx(hits / max(occurs, 1))
        if occurs:
            f1.append(2 * hits / (occurs + predicted))
    assert macro_f1 == pytest.approx(np.mean(f1) if f1 else 0.0)
