"""A prepared data set: images of some classes in three splits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fer_sweep.errors import DataError
from fer_sweep.records import FER2013, DataSpec


class Split(IntEnum):
    """The codes of the splits array."""

    TRAIN = 0
    VAL = 1
    """FER2013's PublicTest: what a sweep selects on."""
    TEST = 2
    """FER2013's PrivateTest: looked at once, at the end."""


class DatasetInfo(BaseModel):
    """What is known of a prepared data set without opening its images."""

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
    """What was left out, converted or made up on the way here, a sentence each."""
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

    @model_validator(mode="after")
    def _counts_everything(self) -> Self:
        whole = {split.name.lower(): set(self.spec.classes) for split in Split}
        if {split: set(classes) for split, classes in self.counts.items()} != whole:
            raise ValueError("counts does not have every split and class")
        return self

    @property
    def total(self) -> int:
        """Images in all splits."""
        return sum(self.split_total(split) for split in Split)

    def split_total(self, split: Split) -> int:
        """Images in one split."""
        return sum(self.counts[split.name.lower()].values())


@dataclass(frozen=True)
class FaceDataset:
    """A prepared data set; its arrays are read-only and shared by every process that opens it."""

    name: str
    info: DatasetInfo
    images: npt.NDArray[np.uint8]
    """(N, *info.spec.stored_shape), memory-mapped."""
    labels: npt.NDArray[np.int64]
    """(N,), each an index into info.spec.classes."""
    splits: npt.NDArray[np.uint8]
    """(N,), codes of Split."""
    groups: npt.NDArray[np.int64]
    """(N,): images with equal pixels share a number."""

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Positions of one split's images, ascending."""
        return np.flatnonzero(self.splits == split)

    def clean_val(self) -> npt.NDArray[np.bool_]:
        """Which validation images have no exact copy in the training split: (n_val,), in the order of indices(VAL)."""
        in_training = self.groups[self.indices(Split.TRAIN)]
        return ~np.isin(self.groups[self.indices(Split.VAL)], in_training)


def positions_of_test(dataset: FaceDataset) -> npt.NDArray[np.int64]:
    """Positions of the test images.

    Raises:
        DataError: There are none.
    """
    positions = dataset.indices(Split.TEST)
    if not len(positions):
        raise DataError(
            f"data set {dataset.name} has no test images (FER2013's PrivateTest)",
            hint="prepare a source that has them under another name, such as fer2013.csv, and give it with --data",
        )
    return positions


def fingerprint_of_test(dataset: FaceDataset) -> str:
    """SHA-256 of the test images with their labels, in hexadecimal; the same in any order.

    Raises:
        DataError: There are none.
    """
    one_by_one = sorted(
        hashlib.sha256(dataset.images[position].tobytes() + bytes([dataset.labels[position]])).digest()
        for position in positions_of_test(dataset)
    )
    return hashlib.sha256(b"".join(one_by_one)).hexdigest()


def count_classes(
    labels: npt.NDArray[np.int64], splits: npt.NDArray[np.uint8], classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Images by split and class, with a zero for a class without images."""
    return {
        split.name.lower(): dict(
            zip(classes, np.bincount(labels[splits == split], minlength=len(classes)).tolist(), strict=True)
        )
        for split in Split
    }


def group_copies(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number images so that equal pixels share a number: (N, ...) -> (N,), numbered in order of appearance."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(image.tobytes(), len(numbers)) for image in images], dtype=np.int64)
