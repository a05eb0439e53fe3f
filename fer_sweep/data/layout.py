"""What every reader of a layout gives, and the words of file and folder names they share."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from fer_sweep.data.dataset import Split
from fer_sweep.records import CLASSES

POOLED = 3
"""Beside the codes of Split: in FER2013's pooled test split, PublicTest and PrivateTest undivided."""

ALPHABETICAL = tuple(sorted(CLASSES))
"""The order an image folder's classes are numbered in: neutral 4, sad 5, surprise 6."""

OFFICIAL_SIZES = {Split.TRAIN: 28_709, Split.VAL: 3_589, Split.TEST: 3_589}
"""Images in FER2013's Training, PublicTest and PrivateTest."""

OFFICIAL_NAMES = {"training": Split.TRAIN, "publictest": Split.VAL, "privatetest": Split.TEST}
"""The words of the CSV's Usage column, which also begin the file names of Kaggle's image folders."""

_SPLIT_NAMES = OFFICIAL_NAMES | {
    "train": Split.TRAIN,
    "val": Split.VAL,
    "valid": Split.VAL,
    "validation": Split.VAL,
    "dev": Split.VAL,
    "test": Split.TEST,
    "testing": Split.TEST,
}

_SYNONYMS = {
    "angry": ("anger",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "happy": ("happiness", "joy"),
    "sad": ("sadness",),
    "surprise": ("surprised",),
    "neutral": ("neutrality",),
}
_CLASS_NAMES = {name: CLASSES.index(name) for name in CLASSES} | {
    synonym: CLASSES.index(name) for name, synonyms in _SYNONYMS.items() for synonym in synonyms
}

OUTSIDE = frozenset({"contempt", "unknown", "nf"})
"""Classes that other label sets have and FER2013 lacks; their images are left out."""


@dataclass(frozen=True)
class RawFaces:
    """Faces as one reader found them, before splits are made whole and copies are numbered."""

    layout: str
    """How the source is laid out, in words."""
    images: npt.NDArray[np.uint8]
    """(N, 48, 48)"""
    labels: npt.NDArray[np.int64]
    """(N,) in the order of CLASSES."""
    splits: npt.NDArray[np.uint8]
    """(N,) codes of Split, or POOLED."""
    official_split: bool
    notes: tuple[str, ...] = ()
    keeps_csv_rows: bool = False
    """Whether image i is row i of the CSV, so that FER+ labels can be joined by position."""


def class_code(name: str) -> int | None:
    """The label of a class by its name or a synonym, in any case; None for no such class.

    >>> class_code("Anger"), class_code("surprised"), class_code("contempt")
    (0, 5, None)
    """
    return _CLASS_NAMES.get(name.strip().lower())


def split_code(name: str) -> Split | None:
    """The split a folder, file stem or Usage value names; None if it names none.

    >>> split_code("Validation")
    <Split.VAL: 1>
    """
    return _SPLIT_NAMES.get(name.strip().lower())


def path_split(path: PurePosixPath) -> Split:
    """The split a file's name begins with, or the nearest folder above it names; training if none does.

    >>> path_split(PurePosixPath("data/valid-00000-of-00001.parquet")), path_split(PurePosixPath("test/0.tar"))
    (<Split.VAL: 1>, <Split.TEST: 2>)
    """
    words = [re.split(r"[-_.]", path.name)[0], *reversed(path.parts[:-1])]
    return next((found for word in words if (found := split_code(word)) is not None), Split.TRAIN)


def nearest_class(name: str) -> str:
    """A hint for a misspelt class.

    >>> nearest_class("hapy")
    'did you mean happy?'
    """
    near = get_close_matches(name.lower(), _CLASS_NAMES, n=1)
    return f"did you mean {near[0]}?" if near else f"the classes are {', '.join(CLASSES)}"


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


def is_official(splits: npt.NDArray[np.uint8]) -> bool:
    """Whether the splits have FER2013's official sizes."""
    return all(int((splits == split).sum()) == size for split, size in OFFICIAL_SIZES.items())
