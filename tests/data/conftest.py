"""Sources of several files, and how one is refused."""

import re
from pathlib import Path

import pytest

from fer_sweep.data import store
from fer_sweep.data.cache import prepare
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES
from tests.support.faces import Faces, tar_bytes

ALPHABETICAL = sorted(CLASSES)


@pytest.fixture(scope="session")
def faces() -> Faces:
    return Faces.drawn()


def refused(source: Path, match: str, hint: str = ".", *, name: str | None = None) -> None:
    """Preparing it raises a DataError with a hint, and leaves the cache as it was."""
    before = listed()
    with pytest.raises(DataError, match=match) as caught:
        prepare(source, name)
    assert re.search(hint, caught.value.hint or "")
    assert listed() == before


def listed() -> list[str]:
    """What is in the cache."""
    return sorted(path.name for path in store.data_folder().glob("*") if path.name != ".lock")


def numbered(faces, order):
    """The labels in another order of the classes."""
    return [order.index(CLASSES[label]) for label in faces.labels]


# Each of these gives a function of the faces to a data set's files, their contents by path.


def folders(*splits):
    """Image folders with other names for the splits, and nothing official in file names."""
    return lambda faces: faces.files(splits, "{number}.png")


def csv_files(*names, columns="emotion,pixels,Usage"):
    """A CSV for each official split."""
    return lambda faces: {name: faces.csv(columns, faces.rows(i)).encode() for i, name in enumerate(names)}


def tables(labels=lambda faces: None, names=None, files=("data/train-00000-of-00001", "valid-0", "test"), **options):
    """A parquet file for each official split."""
    return lambda faces: {
        f"{file}.parquet": faces.parquet(faces.rows(i), labels(faces), names, **options) for i, file in enumerate(files)
    }


def shards(names=None):
    """A WebDataset shard for each official split, each with a sample without image; ``names`` are the classes'."""

    def write(faces):
        labels = numbered(faces, [*names[:6], CLASSES[6]] if names else ALPHABETICAL)
        files = {"classnames.txt": "\n".join(names).encode()} if names else {}
        for usage, name in enumerate(("fer-train-0", "fer-public_test-0", "test/0")):
            files[f"{name}.tar"] = tar_bytes(faces.shard(faces.rows(usage), labels) | {"x.cls": b"0", "x.npy": b"?"})
        return files

    return write
