"""Open, list and prepare data sets by name; the whole public face of this package but for audit and augmentation."""

import dataclasses
import io
import re
import time
from difflib import get_close_matches
from pathlib import Path

from fer_sweep.config.trial import SYNTHETIC
from fer_sweep.data import store
from fer_sweep.data.dataset import DatasetInfo, FaceDataset, Split, count_classes, group_copies
from fer_sweep.data.ferplus import relabel
from fer_sweep.data.images import Progress
from fer_sweep.data.layout import RawFaces, missing_class_notes, size_notes
from fer_sweep.data.memory import MAX_MEMORY, bounded_memory
from fer_sweep.data.sources import READERS
from fer_sweep.data.splits import complete_splits
from fer_sweep.data.tree import Tree, is_archive, open_stream, open_tree
from fer_sweep.errors import DataError

__all__ = [
    "DatasetInfo",
    "FaceDataset",
    "Split",
    "find_dataset",
    "is_prepared",
    "list_datasets",
    "open_dataset",
    "prepare",
]

DEFAULT = "fer2013"
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
    """See that a data set is prepared, without opening its images; `synthetic` always is, and drawn here if need be.

    Raises:
        DataError: There is none of that name, or its description is damaged.
    """
    if name == SYNTHETIC:
        return _synthetic_info()
    info = store.read_info(name) if _NAME.fullmatch(name) else None
    if info is None:
        raise DataError(f"no data set {name!r} has been prepared", hint=_hint(name))
    return info


def is_prepared(name: str) -> bool:
    """Whether there is a data set of this name, be it damaged; `synthetic` always is there."""
    return name == SYNTHETIC or (_NAME.fullmatch(name) is not None and name in store.names())


def list_datasets() -> list[DatasetInfo]:
    """Every data set prepared here, by name.

    Raises:
        DataError: The description of one is damaged.
    """
    return [info for name in store.names() if (info := store.read_info(name)) is not None]


def prepare(
    path: Path,
    name: str | None = None,
    *,
    ferplus: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> DatasetInfo:
    """Read a data set in whatever layout it comes and put it into the cache.

    Args:
        path: A folder, an archive, a CSV or a parquet file.
        name: What to call it; `fer2013` if not given, as the shipped sweep files do.
        ferplus: FER+'s `fer2013new.csv`, whose majority labels replace those of a CSV source.
        replace: Put it in the place of other content of the same name.
        progress: Told of what is being done, how many are done and how many there are.

    Raises:
        DataError: The source cannot be used, or the name is taken by other content; the cache is as it was.
        StorageError: The cache cannot be written; it is as it was.
    """
    name = name or DEFAULT
    if not _NAME.fullmatch(name) or name == SYNTHETIC:
        reason = "is the drawn faces' own" if name == SYNTHETIC else "cannot name a data set"
        raise DataError(
            f"{name!r} {reason}", hint="give another (--name NAME): letters, digits, '.', '_', '-', at most 64"
        )
    report = progress or _silent
    try:
        with bounded_memory():
            with open_tree(path) as tree:
                faces = _read(tree, report)
            notes = size_notes(faces)
            if ferplus is not None:
                faces = relabel(faces, ferplus)
    except MemoryError:
        raise DataError(
            f"{path.name}: refused: reading it takes over {MAX_MEMORY >> 30} GiB of memory",
            hint="no set of faces takes so much: get it from another place",
        ) from None
    faces = dataclasses.replace(faces, notes=faces.notes + notes)
    return _finish(name, path.resolve().name, faces, replace=replace, report=report)


def _read(tree: Tree, report: Progress, *, nested: bool = False) -> RawFaces:
    for reader in READERS:
        if reader.claims(tree):
            return reader.read(tree, report)
    archives = [member for member in tree.members if is_archive(tree, member)]
    if len(archives) == 1 and not nested:
        content = io.BytesIO(tree.read(archives[0]))
        with open_stream(content, archives[0].path.name, archives[0].size) as inner:
            return _read(inner, report, nested=True)
    if archives:
        found = ", ".join(str(member.path) for member in archives[:5])
        raise DataError(f"{tree.name}: no data set, but archives ({found})", hint="give the path of one of them")
    found = ", ".join(str(member.path) for member in tree.members[:5]) or "nothing"
    raise DataError(
        f"{tree.name}: no data set that fersweep knows; it holds {found}",
        hint="known are image folders <split>/<class>/<image>, fer2013.csv and its kin, Hugging Face parquet and "
        "WebDataset tars, each plain or in an archive; FER+ labels go with a CSV (--ferplus)",
    )


def _finish(name: str, source: str, faces: RawFaces, *, replace: bool, report: Progress) -> DatasetInfo:
    total = len(faces.images)
    report("finding copies", 0, total)
    groups = group_copies(faces.images)
    try:
        splits, notes = complete_splits(faces.labels, faces.splits, groups)
    except DataError as error:
        raise DataError(f"{source}: {error}", hint=error.hint) from None
    report("writing the cache", 0, total)
    info = store.build_info(
        name,
        source,
        faces.layout,
        faces.images,
        faces.labels,
        splits,
        official_split=faces.official_split,
        notes=faces.notes + notes + missing_class_notes(count_classes(faces.labels, splits, faces.spec.classes)),
        created=time.time(),
        spec=faces.spec,
    )
    info = store.save(info, faces.images, faces.labels, splits, groups, replace=replace)
    report("writing the cache", total, total)
    return info


def _synthetic_info() -> DatasetInfo:
    from fer_sweep.data import synthetic  # only here: opening a real data set need not pay for it

    source = f"drawn by fersweep, version {synthetic.VERSION}"
    info = store.read_info(SYNTHETIC)
    if info is not None and info.source == source:
        return info
    images, labels, splits = synthetic.draw_dataset()
    info = store.build_info(
        SYNTHETIC,
        source,
        "seeded drawings of seven expressions",
        images,
        labels,
        splits,
        official_split=False,
        notes=("drawn faces: good for trying things out, not for conclusions about real ones",),
        created=time.time(),
    )
    return store.save(info, images, labels, splits, group_copies(images), replace=True)


def _hint(name: str) -> str:
    known = [SYNTHETIC, *store.names()]
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    start = f"did you mean {near[0]}? Otherwise " if near else ""
    return (
        f"{start}prepare it (fersweep data prepare PATH --name {name}), or use drawn faces (--data {SYNTHETIC}); "
        "fersweep data list shows what is here"
    )


def _silent(stage: str, done: int, total: int) -> None:
    pass
