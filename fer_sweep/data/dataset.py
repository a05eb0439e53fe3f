"""A prepared data set: images of some classes in three splits; and faces as a reader finds them."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES, FER2013, DataSpec


class Split(IntEnum):
    """The codes of the splits array."""

    TRAIN = 0
    VAL = 1
    """FER2013's PublicTest: what a sweep selects on."""
    TEST = 2
    """FER2013's PrivateTest: looked at once, at the end."""


POOLED = 3
"""Beside the codes of Split: in FER2013's pooled test split, PublicTest and PrivateTest undivided."""

ALPHABETICAL = tuple(sorted(CLASSES))
"""The order that the classes of image folders are numbered in: neutral 4, sad 5, surprise 6."""


@dataclass(frozen=True)
class RawFaces:
    """Faces as one reader found them."""

    layout: str
    """How the source is laid out, in words."""
    images: npt.NDArray[np.uint8]
    """(N, *spec.stored_shape)"""
    labels: npt.NDArray[np.int64]
    """(N,) indices into spec.classes."""
    splits: npt.NDArray[np.uint8]
    """(N,) codes of Split, or POOLED."""
    official_split: bool = False
    notes: tuple[str, ...] = ()
    keeps_csv_rows: bool = False
    """Whether image i is row i of the CSV, so that FER+ labels can be joined by position."""
    spec: DataSpec = FER2013


class DatasetInfo(BaseModel):
    """The description of a prepared data set."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What `--data` and the sweep file's `data` call it."""
    source: str
    """Where it came from: the file's or folder's name, without its path."""
    layout: str
    """How the source was laid out, in words."""
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
    """SHA-256 of images, labels and splits, in hexadecimal: equal content, equal fingerprint."""
    counts: dict[str, dict[str, Annotated[int, Field(ge=0)]]]
    """Images by split (train, val, test) and class."""
    official_split: bool
    """Whether the splits are FER2013's Training, PublicTest and PrivateTest."""
    notes: tuple[str, ...] = ()
    """What was left out, converted or made up, a sentence each."""
    created: float
    """Unix time, seconds."""
    spec: DataSpec = FER2013
    """Its classes and image shape; data that an earlier release prepared has FER2013's."""

    @classmethod
    def read(cls, path: Path, name: str) -> Self | None:
        """What a file says of the data set of this name; None if there is no such file.

        Raises:
            OSError: It cannot be read.
            ValueError: It is damaged, or describes another data set.
        """
        try:
            info = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        if info.name != name:
            raise ValueError("it describes another data set")
        return info

    @property
    def warnings(self) -> Sequence[str]:
        """Those of its notes that tell of classes without images."""
        return [warning for warning in _warnings(self.counts) if warning in self.notes]

    @property
    def total(self) -> int:
        """Images in all splits."""
        return sum(self.split_total(split) for split in Split)

    def split_total(self, split: Split) -> int:
        """Images in one split."""
        return sum(self.counts[split.name.lower()].values())


@dataclass(frozen=True)
class FaceDataset:
    """A data set with its arrays, read-only and memory-mapped once it is prepared."""

    name: str
    info: DatasetInfo
    images: npt.NDArray[np.uint8]
    """(N, *info.spec.stored_shape)"""
    labels: npt.NDArray[np.int64]
    """(N,), each an index into info.spec.classes."""
    splits: npt.NDArray[np.uint8]
    """(N,), codes of Split."""
    groups: npt.NDArray[np.int64]
    """(N,): images with equal pixels share a number."""

    @classmethod
    def of(cls, name: str, source: str, faces: RawFaces) -> Self:
        """Describe faces that have all splits, under a name; ``source`` is where they come from."""
        counts = count_classes(faces.labels, faces.splits, faces.spec.classes)
        info = DatasetInfo(
            name=name,
            source=source,
            layout=faces.layout,
            fingerprint=fingerprint(faces.images, faces.labels, faces.splits),
            counts=counts,
            official_split=faces.official_split,
            notes=(*faces.notes, *_warnings(counts)),
            created=time.time(),
            spec=faces.spec,
        )
        return cls(name, info, faces.images, faces.labels, faces.splits, group_copies(faces.images))

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Positions of one split's images, ascending."""
        return np.flatnonzero(self.splits == split)

    def clean_val(self) -> npt.NDArray[np.bool_]:
        """Which validation images have no exact copy in the training split: (n_val,), in the order of indices(VAL)."""
        in_training = self.groups[self.indices(Split.TRAIN)]
        return ~np.isin(self.groups[self.indices(Split.VAL)], in_training)


def positions_of_test(dataset: FaceDataset) -> npt.NDArray[np.int64]:
    """Positions of the test images; DataError if there are none."""
    positions = dataset.indices(Split.TEST)
    if not len(positions):
        raise DataError(
            f"data set {dataset.name} has no test images (FER2013's PrivateTest)",
            hint="prepare a source that has them under another name, such as fer2013.csv, and give it with --data",
        )
    return positions


def fingerprint_of_test(dataset: FaceDataset) -> str:
    """SHA-256 of the test images with their labels, in hexadecimal and any order; DataError if there are none."""
    one_by_one = sorted(
        hashlib.sha256(dataset.images[position].tobytes() + bytes([dataset.labels[position]])).digest()
        for position in positions_of_test(dataset)
    )
    return hashlib.sha256(b"".join(one_by_one)).hexdigest()


def fingerprint(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], splits: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of a data set's content, the number of images first."""
    digest = hashlib.sha256(f"fersweep faces {len(images)}\n".encode())
    for array in (images, labels.astype("<i8"), splits):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def count_classes(
    labels: npt.NDArray[np.int64], splits: npt.NDArray[np.uint8], classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Images by split and class, with a zero for a class without images."""
    counts = {split: np.bincount(labels[splits == split], minlength=len(classes)).tolist() for split in Split}
    return {split.name.lower(): dict(zip(classes, of_split, strict=True)) for split, of_split in counts.items()}


def group_copies(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number images so that equal pixels share a number: (N, ...) -> (N,), numbered in order of appearance."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(image.tobytes(), len(numbers)) for image in images], dtype=np.int64)


def _warnings(counts: dict[str, dict[str, int]]) -> list[str]:
    absent = [name for name in counts["train"] if not any(classes[name] for classes in counts.values())]
    notes = [f"there are no images of {', '.join(absent)}"] if absent else []
    for split, classes in counts.items():
        missing = [name for name in classes if not classes[name] and name not in absent]
        if missing and any(classes.values()):
            notes.append(f"{split} has no images of {', '.join(missing)}")
    return notes
