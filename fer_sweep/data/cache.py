"""Open, list and prepare data sets by name: the public face of this package but for audit and augmentation."""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import replace as replaced
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_sweep.config.trial import SYNTHETIC
from fer_sweep.data import store
from fer_sweep.data.dataset import POOLED, FaceDataset, RawFaces, group_copies
from fer_sweep.data.dataset import DatasetInfo as DatasetInfo
from fer_sweep.data.dataset import Split as Split
from fer_sweep.data.images import Progress
from fer_sweep.data.memory import bounded_memory
from fer_sweep.data.sources import Reader, reader_of
from fer_sweep.data.sources.csv_rows import relabel
from fer_sweep.data.sources.hub import OFFICIAL_SIZES
from fer_sweep.data.tree import Tree, is_archive, open_stream, open_tree
from fer_sweep.data.unreadable import unreadable
from fer_sweep.errors import DataError

DEFAULT = "fer2013"
VAL_SHARE = 0.125
"""Of the training images, where a validation split has to be made; FER2013's is an eighth of its training split."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def open_dataset(name: str) -> FaceDataset:
    """Open a prepared data set; `synthetic` is drawn and cached the first time.

    Raises:
        DataError: There is none of that name, or its cache is damaged.
    """
    info = find_dataset(name)
    try:
        return store.load(info)
    except DataError:
        newer = find_dataset(name)
        if newer == info:
            raise
        return store.load(newer)  # it was replaced between the two steps


def find_dataset(name: str) -> DatasetInfo:
    """The description of a prepared data set, as ``open_dataset`` finds it; DataError if there is none."""
    if name == SYNTHETIC:
        return _synthetic_info()
    info = store.read_info(name) if name in store.names() else None
    if info is None:
        start = f"{near} Otherwise " if (near := _near(name)) else ""
        raise DataError(
            f"no data set {name!r} has been prepared",
            hint=f"{start}prepare it (fersweep data prepare PATH --name {name}), or use drawn faces "
            f"(the data set {SYNTHETIC}); fersweep data list shows the prepared ones",
        )
    return info


def is_prepared(name: str) -> bool:
    """Whether there is a data set of this name, damaged or not; `synthetic` is always there."""
    return name == SYNTHETIC or name in store.names()


def list_datasets() -> list[DatasetInfo]:
    """Every data set prepared here, by name; DataError if the description of one is damaged."""
    return [info for name in store.names() if (info := store.read_info(name)) is not None]


def delete(names: Sequence[str]) -> list[DatasetInfo | None]:
    """Delete prepared data sets, all or none; returns what each was, or None for one with a damaged description.

    Raises:
        DataError: One is not prepared, or is `synthetic`.
        StorageError: The cache cannot be written.
    """
    known = store.names()
    for name in names:
        if name == SYNTHETIC:
            raise DataError(f"data set {name} cannot be deleted", hint="fersweep draws it whenever it is used")
        if name not in known:
            start = f"{near} " if (near := _near(name)) else ""
            raise DataError(
                f"no data set {name!r} has been prepared; nothing was deleted",
                hint=f"{start}fersweep data list shows the prepared ones",
            )
    return store.delete(names)


def prepare(
    path: Path,
    name: str | None = None,
    *,
    ferplus: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> DatasetInfo:
    """Read a data set in any known layout and put it into the cache.

    Args:
        path: A folder, an archive, a CSV or a parquet file.
        name: Of the data set; `fer2013` if not given, as in the shipped sweep files.
        ferplus: FER+'s `fer2013new.csv`, whose majority labels replace those of a CSV source.
        replace: Replace other content of the same name.
        progress: Called with the stage, how many are done and how many there are.

    Raises:
        DataError: The source cannot be used, or the name is taken by other content; the cache is as it was.
        StorageError: The cache cannot be written; it is as it was.
    """
    name = name or DEFAULT
    if not _NAME.fullmatch(name) or name == SYNTHETIC:
        reason = "is the drawn faces' own" if name == SYNTHETIC else "cannot name a data set"
        raise DataError(f"{name!r} {reason}", hint="give another: letters, digits, '.', '_', '-', at most 64")
    report = progress or (lambda stage, done, total: None)
    with contextlib.ExitStack() as opened:
        with bounded_memory(path.name):
            reader, tree = _reader_and_tree(opened.enter_context(open_tree(path)))
        faces = reader.read(tree, report)
    sizes = {split: int((faces.splits == split).sum()) for split in Split}
    if ferplus is not None:
        faces = relabel(faces, ferplus)
    source, total = path.resolve().name, len(faces.images)
    report("finding copies", 0, total)
    splits, split_notes = complete_splits(source, faces.labels, faces.splits, group_copies(faces.images))
    size_notes = [
        f"{split.name.lower()} has {sizes[split]:,} images, FER2013's has {size:,}"
        for split, size in OFFICIAL_SIZES.items()
        if faces.official_split and sizes[split] not in (0, size)
    ]
    faces = replaced(faces, splits=splits, notes=(*faces.notes, *size_notes, *split_notes))
    dataset = FaceDataset.of(name, source, faces)
    report("writing the cache", 0, total)
    info = store.save(dataset, replace=replace)
    report("writing the cache", total, total)
    return info


def complete_splits(
    source: str, labels: npt.NDArray[np.int64], splits: npt.NDArray[np.uint8], groups: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Divide a pooled test split, and make a validation split from training images if there is none.

    Labels, codes of Split or POOLED, and numbers of groups of copies are (N,); a group is never divided. Returns codes
    of Split (N,), and notes on what was done. Equal arguments give equal splits.

    Raises:
        DataError: There are no training images, or too few to take a validation split from.
    """
    splits, notes = splits.copy(), []
    pooled = splits == POOLED
    splits[pooled] = Split.TEST
    if pooled.any() and not (splits == Split.VAL).any():
        splits[_drawn(labels, groups, pooled, 0.5)] = Split.VAL
        notes.append(
            "the pooled test split was divided into validation and test halves by class (seeded, copies kept "
            "together): they are not FER2013's PublicTest and PrivateTest"
        )
    training = splits == Split.TRAIN
    if not training.any():
        hint = "give the folder or archive that holds the training split too, or rename what is meant for training"
        raise DataError(f"{source}: no training images", hint=hint)
    if not (splits == Split.VAL).any():
        drawn = _drawn(labels, groups, training, VAL_SHARE)
        if not drawn.any() or drawn.sum() == training.sum():
            raise DataError(
                f"{source}: no validation images, and {training.sum()} training images are too few to take some from",
                hint="give a source with a validation split, or more images",
            )
        splits[drawn] = Split.VAL
        notes.append(
            f"there was no validation split: {drawn.sum():,} training images were made one, class by class "
            "(seeded, copies kept together)"
        )
    if not (splits == Split.TEST).any():
        notes.append("there is no test split (FER2013's PrivateTest)")
    return splits, tuple(notes)


def _reader_and_tree(tree: Tree, *, nested: bool = False) -> tuple[Reader, Tree]:
    """The reader of a tree or of the only archive in it, and what it is to read."""
    reader = reader_of(tree)
    if reader is not None:
        return reader, tree
    archives = [member for member in tree.members if is_archive(tree, member)]
    if len(archives) == 1 and not nested:
        content = io.BytesIO(tree.read(archives[0]))
        return _reader_and_tree(open_stream(content, archives[0].path.name), nested=True)
    if archives:
        found = ", ".join(str(member.path) for member in archives[:5])
        hint = "give the path of one; if they are the splits of one data set, unpack them side by side first"
        raise DataError(f"{tree.name}: no data set, but archives ({found})", hint=hint)
    raise unreadable(tree)


def _drawn(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], among: npt.NDArray[np.bool_], share: float
) -> npt.NDArray[np.bool_]:
    """A share of each class's images, whole groups only: (N,) bool. A group has the class of its first image."""
    generator = np.random.default_rng(0)
    positions = np.flatnonzero(among)
    unique, first, sizes = np.unique(groups[positions], return_index=True, return_counts=True)
    classes = labels[positions[first]]
    chosen: list[npt.NDArray[np.int64]] = []
    for code in np.unique(classes):
        order = generator.permutation(np.flatnonzero(classes == code))
        before = np.cumsum(sizes[order]) - sizes[order]
        chosen.append(order[before + sizes[order] / 2 <= share * sizes[order].sum()])
    return among & np.isin(groups, unique[np.concatenate(chosen)])


def _near(name: str) -> str:
    near = get_close_matches(name, [SYNTHETIC, *store.names()], n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def _synthetic_info() -> DatasetInfo:
    from fer_sweep.data import synthetic  # only here: opening a real data set need not pay for it

    source = f"drawn by fersweep, version {synthetic.VERSION}"
    info = store.read_info(SYNTHETIC)
    if info is not None and info.source == source:
        return info
    note = "drawn faces: good for trying things out, not for conclusions about real ones"
    faces = RawFaces("seeded drawings of seven expressions", *synthetic.draw_dataset(), notes=(note,))
    return store.save(FaceDataset.of(SYNTHETIC, source, faces), replace=True)
