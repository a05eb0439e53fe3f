"""Prepared data on disk: content by fingerprint, and a small file a name that points to it.

    <cache>/data/<name>.json        a DatasetInfo; replacing this file is what makes a data set appear or change
    <cache>/data/<fingerprint>/     images.npy labels.npy splits.npy groups.npy, never changed once it has this name,
                                    and seal.json: the files' sizes and times when they were written

All writing happens under one lock, which the system takes back from a process that dies, so whoever holds it
may remove what a dead one left.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_sweep.data.dataset import DatasetInfo, FaceDataset, count_classes, group_copies
from fer_sweep.errors import DataError, StorageError
from fer_sweep.files import data_folder, write_atomically
from fer_sweep.records import FER2013, DataSpec

ARRAYS = {"images": np.uint8, "labels": np.int64, "splits": np.uint8, "groups": np.int64}
_BUILDING = ".building-"
_SEAL = "seal.json"
_LOCK = ".lock"


def fingerprint(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], splits: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of a data set's content, the number of images first."""
    digest = hashlib.sha256(f"fersweep faces {len(images)}\n".encode())
    for array in (images, labels.astype("<i8"), splits):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_info(name: str) -> DatasetInfo | None:
    """What is known of a prepared data set, or None if there is none of that name.

    Raises:
        DataError: Its file is damaged.
    """
    path = data_folder() / f"{name}.json"
    try:
        return DatasetInfo.read(path, name)
    except (OSError, ValueError) as error:  # pydantic's are ValueErrors too
        raise DataError(
            f"data set {name}: its description {path} is damaged or unreadable ({type(error).__name__})",
            hint=f"remove {path} and prepare the data again: fersweep data prepare PATH --name {name}",
        ) from error


def names() -> list[str]:
    """Names of all prepared data sets, sorted."""
    return sorted(path.stem for path in data_folder().glob("*.json"))


def load(info: DatasetInfo, parent: Path | None = None, *, trust_seal: bool = True) -> FaceDataset:
    """Map a data set's arrays into memory, read-only, after checking that they are what was prepared.

    Shapes and types are always checked; content is compared with the fingerprint where a file was touched since it
    was written (which takes 0.2 s for FER2013, too long for every trial).

    Args:
        info: What is expected there.
        parent: The folder of its content's folder, if that is not the cache.
        trust_seal: Off compares the content in any case.

    Raises:
        DataError: A file is missing, truncated or not what its fingerprint says.
    """
    folder = (parent or data_folder()) / info.fingerprint
    try:
        arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in ARRAYS}
    except Exception as error:  # over a damaged header numpy raises a dozen kinds, tokenize's among them
        raise _damaged(info, f"{type(error).__name__}: {error}") from error
    wanted: dict[str, Any] = dict.fromkeys(ARRAYS, (info.total,)) | {"images": (info.total, *info.spec.stored_shape)}
    for key, dtype in ARRAYS.items():
        if arrays[key].shape != wanted[key] or arrays[key].dtype != dtype:
            found = f"{arrays[key].dtype} {arrays[key].shape}"
            raise _damaged(info, f"{key}.npy holds {found} in place of {np.dtype(dtype)} {wanted[key]}")
    if not (trust_seal and _is_sealed(folder)):
        if fingerprint(arrays["images"], arrays["labels"], arrays["splits"]) != info.fingerprint:
            raise _damaged(info, "its content does not match its fingerprint")
        if not np.array_equal(arrays["groups"], group_copies(arrays["images"])):
            raise _damaged(info, "its groups of copies do not match its images")
        with contextlib.suppress(StorageError):  # a cache that may only be read stays unsealed
            _seal(folder)
    return FaceDataset(name=info.name, info=info, **arrays)


def save(
    info: DatasetInfo,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    splits: npt.NDArray[np.uint8],
    groups: npt.NDArray[np.int64],
    *,
    replace: bool,
) -> DatasetInfo:
    """Write a data set whole, or leave everything as it was.

    Returns:
        The info now in force: the one given, or the present one if that name already has equal content.

    Raises:
        DataError: The name has other content and ``replace`` is off.
        StorageError: The disk is full or the folder cannot be written.
    """
    folder = data_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_writer(folder):
            _clean(folder)
            present = _present(info.name, replace=replace)
            if present is not None and present.fingerprint != info.fingerprint and not replace:
                raise DataError(
                    f"there already is a data set {info.name} with other content (from {present.source}, "
                    f"{present.total} images; the new one has {info.total})",
                    hint="give the new one another name (--name NAME), or put it in the old one's place (--replace)",
                )
            if not _is_whole(info):
                _write_content(folder, info, {"images": images, "labels": labels, "splits": splits, "groups": groups})
            if present is not None and present.model_copy(update={"created": info.created}) == info:
                return present
            write_atomically(folder / f"{info.name}.json", info.model_dump_json(indent=2))
            _clean(folder)
    except OSError as error:
        raise StorageError(
            f"cannot write the data cache {folder}: {error.strerror or error}",
            hint="make room, or point FERSWEEP_CACHE at a folder that can be written, then run the same command again",
        ) from error
    return info


def _present(name: str, *, replace: bool) -> DatasetInfo | None:
    try:
        return read_info(name)
    except DataError:
        if replace:
            return None
        raise


def _is_whole(info: DatasetInfo) -> bool:
    try:
        load(info, trust_seal=False)
    except DataError:
        return False
    return True


def _write_content(folder: Path, info: DatasetInfo, arrays: dict[str, npt.NDArray[Any]]) -> None:
    building = folder / f"{_BUILDING}{secrets.token_hex(4)}"
    building.mkdir()  # not mkdtemp, whose folders only their owner can enter
    try:
        for key, array in arrays.items():
            with (building / f"{key}.npy").open("wb") as stream:
                np.save(stream, np.ascontiguousarray(array, dtype=ARRAYS[key]), allow_pickle=False)
                stream.flush()
                os.fsync(stream.fileno())
        _seal(building)
        target = folder / info.fingerprint
        if target.exists():  # damaged, or it would not be written again
            shutil.rmtree(target)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _marks(folder: Path) -> dict[str, list[int]]:
    """Size in bytes and time of the last change, in nanoseconds, of every array's file."""
    found = {key: (folder / f"{key}.npy").stat() for key in ARRAYS}
    return {key: [status.st_size, status.st_mtime_ns] for key, status in found.items()}


def _seal(folder: Path) -> None:
    write_atomically(folder / _SEAL, json.dumps(_marks(folder)))


def _is_sealed(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _SEAL).read_bytes()) == _marks(folder))
    except (OSError, ValueError):
        return False


def _clean(folder: Path) -> None:
    """Remove unfinished folders and content that no name points to; only the holder of the lock may."""
    try:
        used = {info.fingerprint for name in names() if (info := read_info(name)) is not None}
    except DataError:
        return  # a damaged description may belong to any content, so nothing is removed
    for path in folder.iterdir():
        unfinished = path.name.startswith(".") and path.name != _LOCK
        orphan = len(path.name) == 64 and path.name not in used
        if path.is_dir() and (unfinished or orphan):
            shutil.rmtree(path, ignore_errors=True)
        elif unfinished:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("a+b") as stream:
        if sys.platform == "win32":
            import msvcrt  # exists on Windows only

            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl  # does not exist on Windows

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _damaged(info: DatasetInfo, what: str) -> DataError:
    return DataError(
        f"data set {info.name}: the cache is damaged: {what}",
        hint=f"prepare it again from its source ({info.source}): fersweep data prepare PATH --name {info.name}",
    )


def build_info(
    name: str,
    source: str,
    layout: str,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    splits: npt.NDArray[np.uint8],
    *,
    official_split: bool,
    notes: tuple[str, ...],
    created: float,
    spec: DataSpec = FER2013,
) -> DatasetInfo:
    """Describe content that is about to be saved."""
    return DatasetInfo(
        name=name,
        source=source,
        layout=layout,
        fingerprint=fingerprint(images, labels, splits),
        counts=count_classes(labels, splits, spec.classes),
        official_split=official_split,
        notes=notes,
        created=created,
        spec=spec,
    )
