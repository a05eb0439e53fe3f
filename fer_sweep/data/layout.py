"""What every reader of a layout gives, and what is known of FER2013 itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_sweep.data.dataset import Split
from fer_sweep.records import CLASSES, FER2013, DataSpec

POOLED = 3
"""Beside the codes of Split: in FER2013's pooled test split, PublicTest and PrivateTest undivided."""

ALPHABETICAL = tuple(sorted(CLASSES))
"""The order an image folder's classes are numbered in: neutral 4, sad 5, surprise 6."""

OFFICIAL_SIZES = {Split.TRAIN: 28_709, Split.VAL: 3_589, Split.TEST: 3_589}
"""Images in FER2013's Training, PublicTest and PrivateTest."""


@dataclass(frozen=True)
class RawFaces:
    """Faces as one reader found them, before splits are made whole and copies are numbered."""

    layout: str
    """How the source is laid out, in words."""
    images: npt.NDArray[np.uint8]
    """(N, *spec.stored_shape)"""
    labels: npt.NDArray[np.int64]
    """(N,) indices into spec.classes."""
    splits: npt.NDArray[np.uint8]
    """(N,) codes of Split, or POOLED."""
    official_split: bool
    notes: tuple[str, ...] = ()
    keeps_csv_rows: bool = False
    """Whether image i is row i of the CSV, so that FER+ labels can be joined by position."""
    spec: DataSpec = FER2013


def size_notes(faces: RawFaces) -> tuple[str, ...]:
    """What is missing from, or over, FER2013's official splits, where a source claims to have them."""
    if not faces.official_split:
        return ()
    found = {split: int((faces.splits == split).sum()) for split in Split}
    return tuple(
        f"{split.name.lower()} has {found[split]:,} images, FER2013's has {size:,}"
        for split, size in OFFICIAL_SIZES.items()
        if found[split] not in (0, size)
    )


def missing_class_notes(counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """A note on classes with no images at all, and one for each split that has images, but none of other classes.

    Args:
        counts: Images by split and class.
    """
    absent = [name for name in counts["train"] if not any(classes[name] for classes in counts.values())]
    notes: tuple[str, ...] = (f"there are no images of {', '.join(absent)}",) if absent else ()
    for split, classes in counts.items():
        missing = [name for name in classes if not classes[name] and name not in absent]
        if missing and any(classes.values()):
            notes += (f"{split} has no images of {', '.join(missing)}",)
    return notes


def is_official(splits: npt.NDArray[np.uint8]) -> bool:
    """Whether the splits have FER2013's official sizes."""
    return all(int((splits == split).sum()) == size for split, size in OFFICIAL_SIZES.items())
