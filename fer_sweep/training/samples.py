"""Which images a trial trains on, measures its gap on and selects by. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_sweep.config.trial import SharedConfig
from fer_sweep.data.dataset import FaceDataset, Split
from fer_sweep.errors import ConfigError, DataError, Problem

_SEED = (0, 48, 2013)
"""Of every choice here, so that all trials of a sweep, with any seed, compare on the same images. Not plain 0,
which synthetic faces are shuffled with: the choice would undo the shuffling and take a single class."""


@dataclass(frozen=True)
class Samples:
    """Positions in the data set, ascending."""

    train: npt.NDArray[np.int64]
    """What is trained on."""
    gap: npt.NDArray[np.int64]
    """The training images train_acc is measured on, in the classes' proportions: as many as ``val``, or all of
    ``train`` if that is fewer."""
    val: npt.NDArray[np.int64]
    """The validation split."""
    clean: npt.NDArray[np.bool_]
    """(n_val,): which validation images have no exact copy in the training split."""


def choose_samples(dataset: FaceDataset, config: SharedConfig) -> Samples:
    """Choose a trial's images by ``drop_val_copies`` and ``train_samples``; the seed of ``config`` has no say.

    Raises:
        DataError: The data set has no training or no validation image.
        ConfigError: ``train_samples`` asks for more images than there are.
    """
    train, val = dataset.indices(Split.TRAIN), dataset.indices(Split.VAL)
    if config.drop_val_copies:
        train = train[~np.isin(dataset.groups[train], dataset.groups[val])]
    if len(train) < 2 or not len(val):
        raise DataError(
            f"data set {dataset.name} has {len(train)} training and {len(val)} validation images",
            hint="a training needs both: prepare a data set with a training and a validation split",
        )
    if config.train_samples is not None:
        if config.train_samples > len(train):
            message = f"{config.train_samples} is more than the {len(train)} training images of {dataset.name}"
            raise ConfigError([Problem(message, key="train_samples", hint="take fewer, or leave it out")])
        train = _stratified(train, dataset.labels[train], config.train_samples)
    gap = _stratified(train, dataset.labels[train], min(len(train), len(val)))
    return Samples(train=train, gap=gap, val=val, clean=dataset.clean_val())


def _stratified(positions: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    # Each class lines up in random order, evenly spaced over (0, 1); the first `count` of all are then in the
    # classes' proportions, and a smaller sample is part of a larger one.
    place = np.empty(len(positions))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks = np.random.default_rng(_SEED).permutation(len(members))
        place[members] = (ranks + 0.5) / len(members)
    return positions[np.sort(np.argsort(place, kind="stable")[:count])]
