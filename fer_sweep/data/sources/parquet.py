"""Hugging Face data sets as parquet: `image, label` (AutumnQiu/fer2013) or `jpg, cls` (clip-benchmark/wds_fer2013).

A file's split is in its path (`data/valid-00000-of-00001.parquet`, `default/test/0000.parquet`). Class names in the
file's own metadata say which order its labels have; without them it is the CSV's for `image, label` and alphabetical
for `jpg, cls`, whose test split pools PublicTest and PrivateTest.
"""

import io
import json
from typing import Any

import numpy as np

from fer_sweep.data.dataset import Split
from fer_sweep.data.images import Progress, change_notes, decode_all
from fer_sweep.data.layout import ALPHABETICAL, POOLED, RawFaces, class_code, is_official, path_split
from fer_sweep.data.limits import MAX_FILES, MAX_TOTAL
from fer_sweep.data.tree import Member, Tree, readable
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

_MAGIC = b"PAR1"
_COLUMNS = {"image": "label", "jpg": "cls"}
"""The column of images, and that of labels beside it."""


def claims(tree: Tree) -> bool:
    """Whether some file is parquet."""
    return any(member.path.suffix.lower() == ".parquet" and _is_parquet(tree, member) for member in tree.members)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read every parquet file, with its split from its path.

    Raises:
        DataError: pyarrow is not installed, or a file has other columns, labels or content.
    """
    encoded: list[tuple[str, bytes]] = []
    labels: list[int] = []
    splits: list[int] = []
    names: set[str] = set()
    for member in (m for m in tree.members if m.path.suffix.lower() == ".parquet"):
        image_column, rows = _rows(tree, member)
        names.add(image_column)
        order = _class_order(rows, image_column)
        split = path_split(member.path)
        pooled = split == Split.TEST and image_column == "jpg"
        for number, (image, label) in enumerate(_pairs(tree, member, rows, image_column)):
            where = f"{tree.label(member)}, row {number}"
            encoded.append((where, _image_bytes(image, where)))
            labels.append(_label(label, order, where))
            splits.append(POOLED if pooled else split)
        progress("reading rows", len(encoded), max(len(encoded), 1))
    if not encoded:
        raise DataError(f"{tree.name}: parquet files with no rows", hint="download the data again")
    images, converted = decode_all(encoded, lambda item: item, progress)
    codes = np.array(splits, dtype=np.uint8)
    official = is_official(codes)
    other_sizes = not official and POOLED not in splits
    return RawFaces(
        layout=f"Hugging Face parquet ({' and '.join(f'{n}, {_COLUMNS[n]}' for n in sorted(names))})",
        images=images,
        labels=np.array(labels, dtype=np.int64),
        splits=codes,
        official_split=official,
        notes=change_notes(converted)
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


def _class_order(file: Any, image_column: str) -> tuple[str, ...]:
    metadata = file.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = tuple(str(name) for name in features[_COLUMNS[image_column]]["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        names = ()
    if names and all(class_code(name) is not None for name in names):
        return names
    return ALPHABETICAL if image_column == "jpg" else CLASSES


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


def _label(value: Any, order: tuple[str, ...], where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(order):
        value = order[value]
    found = class_code(value) if isinstance(value, str) else None
    if found is None:
        raise DataError(f"{where}: label {str(value)[:40]!r} is none of the seven classes", hint=f"they are {CLASSES}")
    return found
