"""Prepared data on disk: content by fingerprint, and a small file a name that points to it.

    <cache>/data/<name>.json        a DatasetInfo; replacing this file is what makes a data set appear or change
    <cache>/data/<fingerprint>/     images.npy labels.npy splits.npy groups.npy, never changed once it has this name,
                                    and seal.json: the files' sizes and times when they were written

A folder that several hosts share has content by fingerprint alone. All writing to either happens under a lock, which
the system releases if its process dies, so the owner of the lock may remove unfinished files.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

from fer_sweep.data.dataset import DatasetInfo, FaceDataset, fingerprint, group_copies
from fer_sweep.errors import DataError, StorageError, cannot_write
from fer_sweep.files import atomic_folder, data_folder, write_atomically
from fer_sweep.records import FER2013

ARRAYS = {"images": np.uint8, "labels": np.int64, "splits": np.uint8, "groups": np.int64}
_SEAL, _LOCK = "seal.json", ".lock"


def read_info(name: str) -> DatasetInfo | None:
    """The description of a prepared data set; None if there is none of that name; DataError if it is damaged."""
    path = data_folder() / f"{name}.json"
    try:
        return DatasetInfo.read(path, name)
    except (OSError, ValueError) as error:  # pydantic's are ValueErrors too
        raise DataError(
            f"data set {name}: its description {path} is damaged or unreadable ({type(error).__name__})",
            hint=f"remove {path} and prepare the data again: fersweep data prepare PATH --name {name}",
        ) from error


def image_size(name: str) -> tuple[int, int]:
    """Height and width in pixels of a data set's images; FER2013's if it is not prepared on this host."""
    try:
        info = read_info(name)
    except DataError:
        info = None
    spec = info.spec if info else FER2013
    return spec.height, spec.width


def names() -> list[str]:
    """Names of all prepared data sets, sorted."""
    return sorted(path.stem for path in data_folder().glob("*.json"))


def load(info: DatasetInfo, parent: Path | None = None, *, trust_seal: bool = True) -> FaceDataset:
    """Map a data set's arrays into memory, read-only, after checking that they are what was prepared.

    Content is compared with the fingerprint if a file was touched since it was written, or always if ``trust_seal`` is
    off. (It takes 0.2 s for FER2013, too long for every trial.) ``parent`` is a shared folder in place of the cache.

    Raises:
        DataError: A file is missing, truncated or not what its fingerprint says.
    """
    folder = (parent or data_folder()) / info.fingerprint
    try:
        arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in ARRAYS}
    except Exception as error:  # over a damaged header numpy raises a dozen kinds, tokenize's among them
        raise _damaged(info, f"{type(error).__name__}: {error}") from error
    if not (trust_seal and _is_sealed(folder)):
        if fingerprint(arrays["images"], arrays["labels"], arrays["splits"]) != info.fingerprint:
            raise _damaged(info, "its content does not match its fingerprint")
        if not np.array_equal(arrays["groups"], group_copies(arrays["images"])):
            raise _damaged(info, "its groups of copies do not match its images")
        with contextlib.suppress(StorageError):  # a cache that may only be read stays unsealed
            _seal(folder)
    return FaceDataset(name=info.name, info=info, **arrays)


def save(dataset: FaceDataset, *, replace: bool) -> DatasetInfo:
    """Write a data set whole, or leave everything as it was; returns the info that its name has now.

    Raises:
        DataError: The name has other content and ``replace`` is off, or differs from another one only by case.
        StorageError: The disk is full or the folder cannot be written.
    """
    folder, info = data_folder(), dataset.info
    with _cache_errors(), _only_writer(folder):
        for name in names():
            if name != info.name and name.casefold() == info.name.casefold():
                raise DataError(
                    f"there already is a data set {name}, and disks of Macs and Windows cannot hold {info.name} too",
                    hint=f"use the name {name}, or another one that differs by more than case",
                )
        present = None if replace else read_info(info.name)
        if present is not None and present.fingerprint != info.fingerprint:
            raise DataError(
                f"there already is a data set {info.name} with other content (from {present.source}, "
                f"{present.total} images; the new one has {info.total})",
                hint="give the new one another name, or replace the old one",
            )
        try:
            load(info, trust_seal=False)
        except DataError:  # missing or damaged
            _write_content(dataset, folder)
        if present is not None and present.model_copy(update={"created": info.created}) == info:
            info = present
        else:
            write_atomically(folder / f"{info.name}.json", info.model_dump_json(indent=2))
        _remove_orphans(folder)
    return info


def delete(names: Sequence[str]) -> list[DatasetInfo | None]:
    """Delete data sets by name, and content that no other name has; returns what each was, or None if it was damaged.

    Raises:
        StorageError: The folder cannot be written.
    """
    folder = data_folder()
    deleted: list[DatasetInfo | None] = []
    with _cache_errors(), _only_writer(folder):
        for name in names:
            try:
                deleted.append(read_info(name))
            except DataError:
                deleted.append(None)
            (folder / f"{name}.json").unlink(missing_ok=True)
        _remove_orphans(folder)
    return deleted


def is_shared(info: DatasetInfo, folder: Path) -> bool:
    """Whether a shared folder has a data set's content, by its name."""
    return (folder / info.fingerprint).is_dir()


def share(dataset: FaceDataset, folder: Path) -> bool:
    """Copy a data set's content into a shared folder; false if it is there already.

    Raises:
        StorageError: The folder cannot be written; nothing is there.
    """
    if is_shared(dataset.info, folder):
        return False
    with _only_writer(folder):
        if is_shared(dataset.info, folder):
            return False
        _write_content(dataset, folder)
    return True


def copy_shared(info: DatasetInfo, folder: Path) -> DatasetInfo:
    """Copy a data set from a shared folder into this host's cache, after comparing it with its fingerprint.

    Raises:
        DataError: It is damaged there, or the cache has other content of that name.
        StorageError: The cache cannot be written; it is as it was.
    """
    try:
        found = load(info, folder, trust_seal=False)
    except DataError as error:
        where = folder / info.fingerprint
        raise DataError(
            f"the copy of data set {info.name} in {where} cannot be used: {error}",
            hint=f"remove {where}: the next agent on a host that has the data set copies it there again",
        ) from error
    return save(found, replace=False)


@contextlib.contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise StorageError(
            f"the data cache: {error}",
            hint="make room, or point FERSWEEP_CACHE at a folder that can be written, then run the same command again",
        ) from error


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Exclude other writers of a folder, and remove what killed ones left; StorageError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK):
            for left in folder.glob(".*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                elif left.name != _LOCK:
                    left.unlink(missing_ok=True)
            yield
    except OSError as error:
        raise cannot_write(folder, error) from error


def _write_content(dataset: FaceDataset, folder: Path) -> None:
    target = folder / dataset.info.fingerprint
    shutil.rmtree(target, ignore_errors=True)  # a damaged copy
    with atomic_folder(target) as building:
        for key, dtype in ARRAYS.items():
            array = np.ascontiguousarray(getattr(dataset, key), dtype=dtype)
            np.save(building / f"{key}.npy", array, allow_pickle=False)
        _seal(building)


def _marks(folder: Path) -> dict[str, list[int]]:
    """Bytes and time of the last change, in nanoseconds, of every array's file."""
    found = {key: (folder / f"{key}.npy").stat() for key in ARRAYS}
    return {key: [status.st_size, status.st_mtime_ns] for key, status in found.items()}


def _seal(folder: Path) -> None:
    write_atomically(folder / _SEAL, json.dumps(_marks(folder)))


def _is_sealed(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _SEAL).read_bytes()) == _marks(folder))
    except (OSError, ValueError):
        return False


def _remove_orphans(folder: Path) -> None:
    """Remove content that no name points to."""
    try:
        used = {info.fingerprint for name in names() if (info := read_info(name)) is not None}
    except DataError:
        return  # a damaged description may belong to any content, so nothing is removed
    for path in folder.iterdir():
        if len(path.name) == 64 and path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def _damaged(info: DatasetInfo, what: str) -> DataError:
    return DataError(
        f"data set {info.name}: the cache is damaged: {what}",
        hint=f"prepare it again from its source ({info.source}): fersweep data prepare PATH --name {info.name}",
    )
