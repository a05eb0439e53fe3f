"""Prepared data in a folder that several hosts see: by content, put there once and taken by whoever has none.

<folder>/<fingerprint>/     images.npy labels.npy splits.npy groups.npy, never changed once it has this name
"""

from pathlib import Path

import numpy as np

from fer_sweep.data import store
from fer_sweep.data.dataset import DatasetInfo, FaceDataset
from fer_sweep.errors import DataError, InputError
from fer_sweep.files import atomic_folder


def is_shared(info: DatasetInfo, folder: Path) -> bool:
    """Whether a data set's content lies in a shared folder, as far as its name says."""
    return (folder / info.fingerprint).is_dir()


def share(dataset: FaceDataset, folder: Path) -> bool:
    """Put a data set's content into a shared folder; false if it is there, put by this host or another.

    Raises:
        StorageError: The folder cannot be written; nothing is there.
    """
    if is_shared(dataset.info, folder):
        return False
    try:
        with atomic_folder(folder / dataset.info.fingerprint) as building:
            for name in store.ARRAYS:
                np.save(building / f"{name}.npy", np.asarray(getattr(dataset, name)), allow_pickle=False)
    except InputError:
        return False  # another host was first
    return True


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
