"""Filling in the splits a source does not have, with no copy of an image on both sides."""

import numpy as np
import numpy.typing as npt

from fer_sweep.data.dataset import Split
from fer_sweep.data.layout import POOLED
from fer_sweep.errors import DataError

VAL_SHARE = 0.125
"""Of the training images, where a validation split has to be made; FER2013's is an eighth of its training split."""


def complete_splits(
    labels: npt.NDArray[np.int64],
    splits: npt.NDArray[np.uint8],
    groups: npt.NDArray[np.int64],
    *,
    seed: int = 0,
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Divide a pooled test split, and make a validation split from training images if there is none.

    Args:
        labels: (N,) class indices.
        splits: (N,) codes of Split, or POOLED.
        groups: (N,) numbers shared by copies; a group is never divided.
        seed: Equal seeds give equal splits.

    Returns:
        (N,) codes of Split, and notes on what was done.

    Raises:
        DataError: There are no training images, or too few to take a validation split from.
    """
    splits, notes = splits.copy(), []
    pooled = splits == POOLED
    if pooled.any():
        has_val = bool((splits == Split.VAL).any())
        splits[pooled] = Split.TEST
        if not has_val:
            splits[_draw(labels, groups, pooled, 0.5, seed)] = Split.VAL
            notes.append(
                "the pooled test split was divided into validation and test halves by class (seeded, copies kept "
                "together): they are not FER2013's PublicTest and PrivateTest"
            )
    training = splits == Split.TRAIN
    if not training.any():
        raise DataError("no training images", hint="give the folder or archive that holds the training split too")
    if not (splits == Split.VAL).any():
        drawn = _draw(labels, groups, training, VAL_SHARE, seed)
        if not drawn.any() or drawn.sum() == training.sum():
            raise DataError(
                f"no validation images, and {int(training.sum())} training images are too few to take some from",
                hint="give a source with a validation split, or more images",
            )
        splits[drawn] = Split.VAL
        notes.append(
            f"there was no validation split: {int(drawn.sum()):,} training images were made one, class by class "
            "(seeded, copies kept together)"
        )
    if not (splits == Split.TEST).any():
        notes.append("there is no test split (FER2013's PrivateTest)")
    return splits, tuple(notes)


def _draw(
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    among: npt.NDArray[np.bool_],
    share: float,
    seed: int,
) -> npt.NDArray[np.bool_]:
    """A share of each class's images, whole groups only: (N,) bool.

    A group counts for the class of its first image; copies with other labels go where that one goes.
    """
    generator = np.random.default_rng(seed)
    positions = np.flatnonzero(among)
    unique, first, sizes = np.unique(groups[positions], return_index=True, return_counts=True)
    classes = labels[positions[first]]
    chosen: list[npt.NDArray[np.int64]] = []
    for code in np.unique(classes):
        order = generator.permutation(np.flatnonzero(classes == code))
        before = np.cumsum(sizes[order]) - sizes[order]
        chosen.append(order[before + sizes[order] / 2 <= share * sizes[order].sum()])
    return among & np.isin(groups, unique[np.concatenate(chosen)])
