"""The forms of Hugging Face's hub: parquet (AutumnQiu/fer2013) and WebDataset tars (clip-benchmark/wds_fer2013).

A sample's split is in the path of its file (`data/valid-00000-of-00001.parquet`, `test/0.tar`). A label is the name of
a class or its number. The order of numbers is in parquet's metadata, or in `classnames.txt` beside tars. Without it, or
with numbers for names, it is the CSV's for parquet's columns `image, label`, and alphabetical for tars and for parquet
that was made from them (`jpg, cls`), whose test split pools PublicTest and PrivateTest.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from fer_sweep.data.dataset import ALPHABETICAL, POOLED, RawFaces, Split
from fer_sweep.data.images import ENDINGS, MAX_IMAGE_BYTES, Progress, decode_all
from fer_sweep.data.kinds import kind
from fer_sweep.data.memory import bounded_memory
from fer_sweep.data.names import (
    ClassNames,
    Order,
    left_out,
    named_order,
    order_file,
    order_note,
    splits_by_name,
    unnumbered,
)
from fer_sweep.data.tree import Member, Tree, check_ratio, is_archive, open_stream, readable
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

FORM = "parquet files or WebDataset tars"
OFFICIAL_SIZES = {Split.TRAIN: 28_709, Split.VAL: 3_589, Split.TEST: 3_589}
"""Images in FER2013's Training, PublicTest and PrivateTest."""
_BATCH = 64
"""Rows of parquet that are decoded at once."""
_COLUMNS = {"image": "label", "jpg": "cls"}
"""The column of images, and that of labels beside it."""


@dataclass
class _Samples:
    """What has been read so far."""

    layout: str
    default_order: Order = ALPHABETICAL
    """What numbers mean where the files do not say it."""
    encoded: list[tuple[str, bytes]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    places: list[PurePosixPath] = field(default_factory=list)
    """What names each sample's split."""
    names: ClassNames = field(default_factory=ClassNames)
    uses_default_order: bool = False
    without_image: int = 0
    left_out: tuple[str, ...] = ()
    """A note."""

    def add(self, where: str, image: bytes, label: object, order: Order | None, place: PurePosixPath) -> None:
        """Add a sample, unless its class is one that FER2013 lacks."""
        names = order or self.default_order
        name = str(label)
        if type(label) is int and 0 <= label < len(names):
            name = names[label]
            self.uses_default_order |= order is None
        code = self.names.label(name, f"{where}: label")
        if code is not None:
            self.encoded.append((where, image))
            self.labels.append(code)
            self.places.append(place)

    def faces(self, source: str, progress: Progress) -> RawFaces:
        """Decode all samples, with their splits by the names of their places."""
        split_by_place, split_notes = splits_by_name(source, self.places)
        splits = np.array([split_by_place[place] for place in self.places], dtype=np.uint8)
        if self.default_order == ALPHABETICAL:
            splits[splits == Split.TEST] = POOLED
        images, changes = decode_all(self.encoded, lambda sample: sample, progress)
        official = all(int((splits == split).sum()) == size for split, size in OFFICIAL_SIZES.items())
        notes = [*split_notes, *self.names.notes(), *changes]
        if self.uses_default_order:
            notes.append(order_note(self.default_order))
        if self.without_image:
            notes.append(f"{self.without_image:,} samples with no image of a kind that is read were left out")
        if not official and POOLED not in splits:
            notes.append("the splits do not have FER2013's official sizes: taken as they come")
        notes += self.left_out
        return RawFaces(self.layout, images, np.array(self.labels, dtype=np.int64), splits, official, tuple(notes))


def claims(tree: Tree) -> bool:
    """Whether some file is parquet, or it is a tar of samples, or holds one."""
    return bool(_tables(tree)) or any(_has_samples(shard) for _, shard in islice(_shards(tree), 1))


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read every parquet file, or else every tar."""
    tables = _tables(tree)
    with bounded_memory(tree.name):
        samples = _read_tables(tree, tables) if tables else _read_shards(tree)
    shards = [member for member in tree.members if _is_shard(tree, member)]
    samples.left_out = left_out(tree, tables or shards)
    if not samples.encoded:
        raise DataError(f"{tree.name}: files with no samples", hint="download the data again")
    return samples.faces(tree.name, progress)


def _tables(tree: Tree) -> list[Member]:
    """Every file with parquet's ending, if one of them is parquet."""
    members = [member for member in tree.members if member.path.suffix.lower() == ".parquet"]
    return members if any(tree.head(member, 4) == b"PAR1" for member in members) else []


def _read_tables(tree: Tree, members: list[Member]) -> _Samples:
    samples = _Samples("")
    kinds: set[tuple[str, bool]] = set()
    for member in members:
        label = tree.label(member)
        image_column, file = _table(tree, member)
        label_column = _COLUMNS[image_column]
        samples.layout = f"Hugging Face parquet ({image_column}, {label_column})"
        samples.default_order = CLASSES if image_column == "image" else ALPHABETICAL
        names = _names_in_metadata(file, label_column)
        order = None if names is None else named_order(names, f"{label}: the class names in its metadata")
        kinds.add((image_column, order is None))
        if len(kinds) > 1:
            raise DataError(
                f"{label}: this file and one before it have other columns, or only one of them names its classes",
                hint="give a folder that holds the files of one data set only, or download all of them again",
            )
        unpacked = 0
        for number, (image, answer) in enumerate(_rows(file, (image_column, label_column), label)):
            where = f"{label}, row {number}"
            content = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(content, bytes):
                hint = "the file only refers to images: download the data set's own parquet"
                raise DataError(f"{where}: no image in the row", hint=hint)
            unpacked += len(content)
            check_ratio(label, unpacked, member.size)
            samples.add(where, content, answer, order, unnumbered(member.path))
    return samples


def _rows(file: Any, columns: tuple[str, str], label: str) -> Iterator[tuple[Any, Any]]:
    """Image and label of each row. In pieces: a small file may repeat one large value by its number in a dictionary."""
    with readable(label):
        for batch in file.iter_batches(_BATCH, columns=list(columns), use_threads=False):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _table(tree: Tree, member: Member) -> tuple[str, Any]:
    """The column of images, and the opened file."""
    label = tree.label(member)
    try:
        import pyarrow.parquet as pq  # optional, and slow to import
    except ImportError:
        raise DataError(
            f"{label}: reading parquet needs pyarrow, which is not installed",
            hint="pip install 'fersweep[parquet]', or give the CSV or the image folders instead",
        ) from None
    other = kind(tree.head(member))
    if other is not None:
        raise DataError(f"{label}: it is {other[0]}", hint=other[1])
    with readable(label):
        file = pq.ParquetFile(io.BytesIO(tree.read(member)))
        columns = list(file.schema_arrow.names)
    for image, answer in _COLUMNS.items():
        if image in columns and answer in columns:
            return image, file
    raise DataError(
        f"{label}: columns {', '.join(columns)[:200]}",
        hint="a data set of faces has the columns image and label, or jpg and cls",
    )


def _names_in_metadata(file: Any, label_column: str) -> list[object] | None:
    """The names of a file's labels; None if it has none, or numbers for names."""
    metadata = file.schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label_column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not names or names == [str(number) for number in range(len(CLASSES))]:
        return None
    return names if isinstance(names, list) else [names]


def _shards(tree: Tree) -> Iterator[tuple[PurePosixPath, Tree]]:
    """The tars of a tree, or itself if it is one, each with the path that names its split."""
    if _has_samples(tree):
        yield unnumbered(PurePosixPath(tree.name)), tree
        return
    for member in tree.members:
        if _is_shard(tree, member):
            yield unnumbered(member.path), open_stream(io.BytesIO(tree.read(member)), tree.label(member))


def _is_shard(tree: Tree, member: Member) -> bool:
    return member.path.suffix == ".tar" and is_archive(tree, member)


def _has_samples(tree: Tree) -> bool:
    return any(member.path.suffix == ".cls" for member in tree.members)


def _read_shards(tree: Tree) -> _Samples:
    samples = _Samples("WebDataset tars")
    order = order_file(tree)
    for place, shard in _shards(tree):
        _read_shard(shard, place, order, samples)
    return samples


def _read_shard(shard: Tree, place: PurePosixPath, order: Order | None, samples: _Samples) -> None:
    members = {member.path: member for member in shard.members}
    images = [member for member in shard.members if member.path.suffix.lower() in ENDINGS]
    for image in images:
        answer = members.get(image.path.with_suffix(".cls"))
        if answer is None:
            raise DataError(f"{shard.label(image)}: a sample with no .cls beside it", hint="download the shard again")
        text = shard.read(answer, limit=MAX_IMAGE_BYTES)[:80].decode(errors="replace").strip()
        label = int(text) if text.isdecimal() else text
        content = shard.read(image, limit=MAX_IMAGE_BYTES)
        samples.add(shard.label(image), content, label, order, place / image.path.parent)
    stems = {image.path.with_suffix("") for image in images}
    samples.without_image += sum(p.suffix == ".cls" and p.with_suffix("") not in stems for p in members)
