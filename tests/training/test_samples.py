from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.config.trial import parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import DatasetInfo, FaceDataset, Split, count_classes, group_copies
from fer_sweep.errors import ConfigError, DataError
from fer_sweep.training.samples import choose_samples

steady = settings(derandomize=True, deadline=None, max_examples=60)


def config(**changes: Any) -> Any:
    return parse_trial({"model": "simple_cnn", **changes})


def faces_of(labels: np.ndarray, splits: np.ndarray, groups: np.ndarray | None = None) -> FaceDataset:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 48, 48)).astype(np.uint8)
    info = DatasetInfo(
        name="made", source="", layout="", fingerprint="0", counts=count_classes(labels, splits), official_split=False,
        created=0.0,
    )  # fmt: skip
    groups = group_copies(images) if groups is None else groups
    return FaceDataset(name="made", info=info, images=images, labels=labels, splits=splits, groups=groups)


@steady
@given(sizes=st.lists(st.integers(1, 60), min_size=7, max_size=7), share=st.floats(0.1, 1.0), seed=st.integers(0, 99))
def test_train_samples_keeps_the_classes_proportions(sizes: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(7), sizes)
    labels = np.concatenate([np.random.default_rng(seed).permutation(labels), [0, 1]]).astype(np.int64)
    splits = np.array([Split.TRAIN] * (len(labels) - 2) + [Split.VAL] * 2, dtype=np.uint8)
    dataset = faces_of(labels, splits)
    count = max(7, round(share * sum(sizes)))
    chosen = choose_samples(dataset, config(train_samples=count)).train
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert (np.diff(chosen) > 0).all()
    assert (splits[chosen] == Split.TRAIN).all()
    exact = np.array(sizes) * count / sum(sizes)
    assert np.abs(np.bincount(labels[chosen], minlength=7) - exact).max() <= 1.5
    other_seed = choose_samples(dataset, config(train_samples=count, seed=9)).train
    assert (other_seed == chosen).all()
    if count > 7:
        assert set(choose_samples(dataset, config(train_samples=count - 1)).train) < set(chosen)


def test_copies_of_validation_images_can_be_left_out() -> None:
    splits = np.array([0, 0, 0, 0, 1, 1, 2], dtype=np.uint8)
    dataset = faces_of(np.zeros(7, np.int64), splits, groups=np.array([5, 6, 7, 8, 6, 9, 5]))
    assert choose_samples(dataset, config()).train.tolist() == [0, 1, 2, 3]
    samples = choose_samples(dataset, config(drop_val_copies=True))
    assert samples.train.tolist() == [0, 2, 3]
    assert samples.clean.tolist() == [False, True]


def test_the_gap_is_measured_on_as_many_images_as_validation_has() -> None:
    splits = np.array([0] * 50 + [1] * 20, dtype=np.uint8)
    samples = choose_samples(faces_of(np.zeros(70, np.int64), splits), config())
    assert len(samples.gap) == len(samples.val) == 20
    assert set(samples.gap) < set(samples.train)
    few = choose_samples(faces_of(np.zeros(70, np.int64), splits), config(train_samples=10))
    assert few.gap.tolist() == few.train.tolist()


def test_too_little_data_is_refused() -> None:
    labels = np.zeros(10, np.int64)
    with pytest.raises(DataError, match="0 validation images"):
        choose_samples(faces_of(labels, np.zeros(10, np.uint8)), config())
    with pytest.raises(ConfigError, match="10 is more than the 9 training"):
        choose_samples(faces_of(labels, np.array([0] * 9 + [1], np.uint8)), config(train_samples=10))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gap_sample_has_all_classes_however_the_faces_were_shuffled(seed: int) -> None:
    # A sample drawn with the generator that shuffled the faces once took one class alone.
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(7), 100))
    dataset = faces_of(np.append(labels, [0] * 70), np.array([0] * 700 + [1] * 70, dtype=np.uint8))
    samples = choose_samples(dataset, config())
    assert np.bincount(labels[samples.gap]).tolist() == [10] * 7
    assert np.corrcoef(samples.gap, np.arange(70))[0, 1] > 0.9  # spread over the whole split


def test_the_gap_sample_of_synthetic_faces_is_like_the_split() -> None:
    dataset = open_dataset("synthetic")
    samples = choose_samples(dataset, config())
    shares = [np.bincount(dataset.labels[chosen], minlength=7) / len(chosen) for chosen in (samples.gap, samples.train)]
    assert np.allclose(*shares, atol=0.01)
