"""WebDataset tars, as clip-benchmark/wds_fer2013 is on the Hugging Face hub: `train/0.tar`, `test/0.tar`, ...

A sample is two members, `s0000017.jpg` and `s0000017.cls`. Labels are numbers in the order of `classnames.txt`, or in
alphabetical order where that file is missing, or a class's name. The test split pools PublicTest and PrivateTest.
"""

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from fer_sweep.data.dataset import Split
from fer_sweep.data.images import ENDINGS, MAX_BYTES, Progress, change_notes, decode_all
from fer_sweep.data.layout import ALPHABETICAL, POOLED, RawFaces
from fer_sweep.data.names import (
    class_code,
    class_notes,
    outside_class,
    outside_notes,
    splits_by_name,
    unknown_class,
    unnumbered,
)
from fer_sweep.data.tree import Member, Tree, is_tar, open_stream
from fer_sweep.errors import DataError

_NAMES_FILE = "classnames.txt"
_LONGEST_NAMES = 64 << 10
"""Bytes of it."""


@dataclass
class _Samples:
    """What has been read so far."""

    order: tuple[str, ...] | None
    """Names of the labels from 0 on, if they are known."""
    encoded: list[tuple[str, bytes]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    places: list[PurePosixPath] = field(default_factory=list)
    """What names each sample's split."""
    names: set[str] = field(default_factory=set)
    outside: Counter[str] = field(default_factory=Counter)
    without_image: int = 0
    are_numbered: bool = False


def claims(tree: Tree) -> bool:
    """Whether it is a tar of samples, or holds one."""
    if _has_samples(tree):
        return True
    first = next(iter(_shards(tree)), None)
    if first is None:
        return False
    with open_stream(io.BytesIO(tree.read(first)), first.path.name, first.size) as shard:
        return _has_samples(shard)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read every shard, with its split from its path.

    Raises:
        DataError: A sample lacks its image or label, or one of them cannot be read.
    """
    samples = _Samples(_class_names(tree))
    if _has_samples(tree):
        _read_shard(tree, unnumbered(PurePosixPath(tree.name)), samples)
    else:
        shards = _shards(tree)
        for number, member in enumerate(shards):
            with open_stream(io.BytesIO(tree.read(member)), tree.label(member), member.size) as shard:
                _read_shard(shard, unnumbered(member.path), samples)
            progress("reading shards", number + 1, len(shards))
    splits, split_notes = splits_by_name(tree.name, samples.places)
    codes = {place: POOLED if split == Split.TEST else split for place, split in splits.items()}
    images, changes = decode_all(samples.encoded, lambda sample: sample, progress)
    return RawFaces(
        layout="WebDataset tars",
        images=images,
        labels=np.array(samples.labels, dtype=np.int64),
        splits=np.array([codes[place] for place in samples.places], dtype=np.uint8),
        official_split=False,
        notes=(*split_notes, *_notes(samples), *change_notes(changes)),
    )


def _notes(samples: _Samples) -> tuple[str, ...]:
    notes = class_notes(samples.names) + outside_notes(samples.outside)
    if samples.are_numbered and samples.order is None:
        notes += (f"there is no {_NAMES_FILE}: labels 0 to 6 were read as {', '.join(ALPHABETICAL)}",)
    if samples.without_image:
        notes += (f"{samples.without_image:,} samples with no image of a kind that is read were left out",)
    return notes


def _shards(tree: Tree) -> list[Member]:
    return [member for member in tree.members if member.path.suffix == ".tar" and is_tar(tree, member)]


def _has_samples(tree: Tree) -> bool:
    return any(member.path.suffix == ".cls" for member in tree.members)


def _class_names(tree: Tree) -> tuple[str, ...] | None:
    """The lines of classnames.txt.

    Raises:
        DataError: One of them is no class.
    """
    member = next((m for m in tree.members if m.path.name == _NAMES_FILE), None)
    if member is None:
        return None
    text = tree.read(member, limit=_LONGEST_NAMES).decode("utf-8-sig", errors="replace")
    return tuple(_known(line, tree.label(member)) for line in text.splitlines() if line.strip())


def _read_shard(tree: Tree, path: PurePosixPath, samples: _Samples) -> None:
    members = {member.path: member for member in tree.members}
    images = [member for member in tree.members if member.path.suffix.lower() in ENDINGS]
    stems = {member.path.with_suffix("") for member in images}
    samples.without_image += sum(
        member.path.suffix == ".cls" and member.path.with_suffix("") not in stems for member in tree.members
    )
    for member in images:
        answer = members.get(member.path.with_suffix(".cls"))
        if answer is None:
            raise DataError(f"{tree.label(member)}: a sample with no .cls beside it", hint="download the shard again")
        name = _label(tree.read(answer, limit=MAX_BYTES), samples, tree.label(answer))
        samples.names.add(name)
        code = class_code(name)
        if code is None:
            samples.outside[outside_class(name) or name] += 1
            continue
        samples.encoded.append((tree.label(member), tree.read(member, limit=MAX_BYTES)))
        samples.labels.append(code)
        samples.places.append(path / member.path.parent)


def _label(content: bytes, samples: _Samples, where: str) -> str:
    """The name that a label stands for."""
    text = content[:80].decode("utf-8", errors="replace").strip()
    order = samples.order or ALPHABETICAL
    if text in {str(number) for number in range(len(order))}:
        samples.are_numbered = True
        return order[int(text)]
    return _known(text, where)


def _known(name: str, where: str) -> str:
    if class_code(name) is None and outside_class(name) is None:
        raise unknown_class(where, name)
    return name
