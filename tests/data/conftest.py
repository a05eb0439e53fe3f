"""Sources of several files, and how one is refused."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fer_sweep.data import store
from fer_sweep.data.cache import prepare
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES
from tests.support.faces import Faces, Files, tar_bytes

ALPHABETICAL = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
Write = Callable[[Faces], Files]


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
    folder = store.data_folder()
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.exists() else []


def numbered(faces: Faces, order: Sequence[str]) -> list[int]:
    """The labels in another order of the classes."""
    return [order.index(CLASSES[label]) for label in faces.labels]


def folders(*splits: str) -> Write:
    """Image folders with other names for the splits, and nothing official in file names."""
    return lambda faces: faces.files(splits, "{number}.png")


def csv_files(*names: str, columns: str = "emotion,pixels,Usage") -> Write:
    """A CSV for each official split."""
    return lambda faces: {name: faces.csv(columns, faces.rows(i)).encode() for i, name in enumerate(names)}


def tables(
    labels: Callable[[Faces], Sequence[Any]] | None = None,
    names: object = None,
    files: Sequence[str] = ("data/train-00000-of-00001", "fer2013valid-0", "test"),
    **options: Any,
) -> Write:
    """A parquet file for each official split."""
    return lambda faces: {
        f"{name}.parquet": faces.parquet(faces.rows(i), labels(faces) if labels else None, names, **options)
        for i, name in enumerate(files)
    }


def shards(names: Sequence[str] | None = None) -> Write:
    """A WebDataset shard for each official split, each with a sample without image; ``names`` are the classes'."""

    def write(faces: Faces) -> Files:
        labels = numbered(faces, ALPHABETICAL if names is None else [*names[:6], CLASSES[6]])
        odd = {"x.cls": b"0", "x.npy": b"?"}
        files = {"test/nshards.txt": b"1"} | ({"classnames.txt": "\n".join(names).encode()} if names else {})
        for usage, name in enumerate(("fer-train-0", "fer-public_test-0", "test/0")):
            files[f"{name}.tar"] = tar_bytes(faces.shard(faces.rows(usage), labels) | odd)
        return files

    return write
