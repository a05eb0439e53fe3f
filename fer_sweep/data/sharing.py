"""Prepared data in a folder that several hosts see: by content, put there once and taken by whoever has none.

<folder>/<fingerprint>/     images.npy labels.npy splits.npy groups.npy, never changed once it has this name
<folder>/.<fingerprint>.lock    held by whoever puts it there
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_sweep.data import store
from fer_sweep.data.dataset import DatasetInfo, FaceDataset
from fer_sweep.errors import DataError, InputError, cannot_write
from fer_sweep.files import atomic_folder


def is_shared(info: DatasetInfo, folder: Path) -> bool:
    """Whether a data set's content lies in a shared folder, as far as its name says."""
    return (folder / info.fingerprint).is_dir()


def share(dataset: FaceDataset, folder: Path) -> bool:
    """Put a data set's content into a shared folder; false if it is there, put by this host or another.

    Raises:
        StorageError: The folder cannot be written; nothing is there.
    """
    target = folder / dataset.info.fingerprint
    if is_shared(dataset.info, folder):
        return False
    try:
        with _only_one_that_puts(target), atomic_folder(target) as building:
            for name in store.ARRAYS:
                np.save(building / f"{name}.npy", np.asarray(getattr(dataset, name)), allow_pickle=False)
    except (InputError, BlockingIOError):
        return False  # another host was first
    return True


@contextlib.contextmanager
def _only_one_that_puts(target: Path) -> Iterator[None]:
    """Keep others from putting the same content there, and remove what those left that died over it.

    Raises:
        BlockingIOError: Another one is at it.
        StorageError: The folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = (target.parent / f".{target.name}.lock").open("w")
    except OSError as error:
        raise cannot_write(target, error) from error
    with stream:
        try:
            import fcntl  # only here: Windows has none

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except (ImportError, OSError):
            pass  # no locks here: whole or not at all all the same, and what a dead one left may be a living one's
        else:
            for left in target.parent.glob(f".{target.name}.*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
        yield


def take(info: DatasetInfo, folder: Path) -> DatasetInfo:
    """Copy a data set from a shared folder into this host's cache, after comparing it with its fingerprint.

    Raises:
        DataError: It is damaged there, or the cache has other content of that name.
        StorageError: The cache cannot be written; it is as it was.
    """
    try:
        found = store.load(info, folder, trust_seal=False)
    except DataError as error:
        where = folder / info.fingerprint
        raise DataError(
            f"the copy of data set {info.name} in {where} cannot be used: {error}",
            hint=f"remove {where}: the next agent on a host that has the data set puts it there again",
        ) from error
    return store.save(info, found.images, found.labels, found.splits, found.groups, replace=False)
