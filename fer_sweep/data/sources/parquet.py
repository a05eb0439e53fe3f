"""Hugging Face data sets as parquet: `image, label` (AutumnQiu/fer2013) or `jpg, cls` (clip-benchmark/wds_fer2013).

A file's split is in its path (`data/valid-00000-of-00001.parquet`, `default/test/0000.parquet`). Class names in the
files' own metadata say which order their labels have. Without them, or with numbers for names, it is the CSV's for
`image, label` and alphabetical for `jpg, cls`, whose test split pools PublicTest and PrivateTest.
"""

import io
import json
from collections import Counter
from typing import Any

import numpy as np

from fer_sweep.data.dataset import Split
from fer_sweep.data.images import Progress, change_notes, decode_all
from fer_sweep.data.layout import ALPHABETICAL, POOLED, RawFaces, is_official
from fer_sweep.data.limits import MAX_FILES, MAX_TOTAL
from fer_sweep.data.names import (
    class_code,
    class_notes,
    outside_class,
    outside_notes,
    splits_by_name,
    unknown_class,
    unnumbered,
)
from fer_sweep.data.tree import Member, Tree, readable
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

_MAGIC = b"PAR1"
_COLUMNS = {"image": "label", "jpg": "cls"}
"""The column of images, and that of labels beside it."""
_DEFAULT_ORDERS = {"image": CLASSES, "jpg": ALPHABETICAL}
"""What labels mean where the files do not say it."""


def claims(tree: Tree) -> bool:
    """Whether some file is parquet."""
    return any(member.path.suffix.lower() == ".parquet" and _is_parquet(tree, member) for member in tree.members)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read every parquet file, with its split from its path.

    Raises:
        DataError: pyarrow is not installed, or a file has other columns, labels or content.
    """
    members = [m for m in tree.members if m.path.suffix.lower() == ".parquet"]
    places = {member: unnumbered(member.path) for member in members}
    split_by_place, notes = splits_by_name(tree.name, places.values())
    encoded: list[tuple[str, bytes]] = []
    labels: list[int] = []
    splits: list[int] = []
    columns: set[str] = set()
    orders: set[tuple[str, ...] | None] = set()
    names: set[str] = set()
    numbered: set[str] = set()
    outside: Counter[str] = Counter()
    for member in members:
        image_column, rows = _rows(tree, member)
        columns.add(image_column)
        order = _class_names(tree, member, rows, image_column)
        orders.add(order)
        if len(orders) > 1 and None in orders:
            raise DataError(
                f"{tree.label(member)}: this file or one before it does not name its classes, and the other does",
                hint="give a folder that holds the files of one data set only, or download all of them again",
            )
        split = split_by_place[places[member]]
        code = POOLED if split == Split.TEST and image_column == "jpg" else split
        for number, (image, label) in enumerate(_pairs(tree, member, rows, image_column)):
            where = f"{tree.label(member)}, row {number}"
            name = _class_name(label, order or _DEFAULT_ORDERS[image_column], where)
            names.add(name)
            if order is None and label != name:
                numbered.add(image_column)
            found = class_code(name)
            if found is None:
                outside[outside_class(name) or name] += 1
                continue
            encoded.append((where, _image_bytes(image, where)))
            labels.append(found)
            splits.append(code)
        progress("reading rows", len(encoded), max(len(encoded), 1))
    if not encoded:
        raise DataError(f"{tree.name}: parquet files with no rows", hint="download the data again")
    images, changes = decode_all(encoded, lambda item: item, progress)
    codes = np.array(splits, dtype=np.uint8)
    official = is_official(codes)
    other_sizes = not official and POOLED not in splits
    return RawFaces(
        layout=f"Hugging Face parquet ({' and '.join(f'{n}, {_COLUMNS[n]}' for n in sorted(columns))})",
        images=images,
        labels=np.array(labels, dtype=np.int64),
        splits=codes,
        official_split=official,
        notes=(
            *notes,
            *class_notes(names),
            *map(_order_note, sorted(numbered)),
            *outside_notes(outside),
            *change_notes(changes),
        )
        + (("the splits do not have FER2013's official sizes: taken as they come",) if other_sizes else ()),
    )


def _is_parquet(tree: Tree, member: Member) -> bool:
    return tree.head(member, len(_MAGIC)) == _MAGIC


def _rows(tree: Tree, member: Member) -> tuple[str, Any]:
    try:
        import pyarrow.parquet as pq  # optional, and slow to import
    except ImportError:
        raise DataError(
            f"{tree.label(member)}: reading parquet needs pyarrow, which is not installed",
            hint="pip install 'fersweep[parquet]', or give the CSV or the image folders instead",
        ) from None
    label = tree.label(member)
    with readable(label):
        file = pq.ParquetFile(io.BytesIO(tree.read(member)))
        columns = list(file.schema_arrow.names)
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(i).total_byte_size for i in groups)
    if file.metadata.num_rows > MAX_FILES or size > MAX_TOTAL:
        raise DataError(
            f"{label}: refused: {file.metadata.num_rows:,} rows, {size >> 20:,} MiB unpacked",
            hint="no set of faces is so large",
        )
    for image, answer in _COLUMNS.items():
        if image in columns and answer in columns:
            return image, file
    raise DataError(
        f"{label}: columns {', '.join(columns)[:200]}",
        hint="a data set of faces has the columns image and label, or jpg and cls",
    )


def _class_names(tree: Tree, member: Member, file: Any, image_column: str) -> tuple[str, ...] | None:
    """The names of a file's labels, in their order; None if it has none, or numbers for names.

    Raises:
        DataError: One of them is no class.
    """
    metadata = file.schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][_COLUMNS[image_column]]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if isinstance(names, dict):  # {"0": "angry", ...}
        names = [names.get(str(number)) for number in range(len(names))]
    if not names or names == [str(number) for number in range(len(CLASSES))]:
        return None
    names = names if isinstance(names, list) else [names]
    for name in names:
        if not isinstance(name, str) or (class_code(name) is None and outside_class(name) is None):
            raise unknown_class(f"{tree.label(member)}: the class names in its metadata", str(name))
    return tuple(names)


def _order_note(image_column: str) -> str:
    order = ", ".join(_DEFAULT_ORDERS[image_column])
    return f"the files do not name their classes: labels 0 to {len(CLASSES) - 1} were read as {order}"


def _pairs(tree: Tree, member: Member, file: Any, image_column: str) -> list[tuple[Any, Any]]:
    with readable(tree.label(member)):
        table = file.read(columns=[image_column, _COLUMNS[image_column]])
        images, labels = (table.column(name).to_pylist() for name in (image_column, _COLUMNS[image_column]))
    return list(zip(images, labels, strict=True))


def _image_bytes(image: Any, where: str) -> bytes:
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise DataError(
            f"{where}: no image in the row", hint="the file only refers to images: download the data set's own parquet"
        )
    return content


def _class_name(value: Any, order: tuple[str, ...], where: str) -> str:
    """The name a label stands for: a class, or one of those that are left out."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(order):
        value = order[value]
    if isinstance(value, str) and (class_code(value) is not None or outside_class(value) is not None):
        return value
    raise unknown_class(f"{where}: label", str(value))
