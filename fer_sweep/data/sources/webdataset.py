"""WebDataset tars, as clip-benchmark/wds_fer2013 is on the Hugging Face hub: `train/0.tar`, `test/0.tar`, ...

A sample is two members, `s0000017.jpg` and `s0000017.cls`; labels are in alphabetical order, and the test split
pools PublicTest and PrivateTest.
"""

import io
from pathlib import PurePosixPath

import numpy as np

from fer_sweep.data.dataset import Split
from fer_sweep.data.images import ENDINGS, MAX_BYTES, Progress, change_notes, decode_all
from fer_sweep.data.layout import ALPHABETICAL, POOLED, RawFaces, path_split
from fer_sweep.data.tree import Member, Tree, is_tar, open_stream
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

Sample = tuple[str, bytes]


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
    samples: list[Sample] = []
    labels: list[int] = []
    splits: list[int] = []
    if _has_samples(tree):
        _read_shard(tree, PurePosixPath(tree.name), samples, labels, splits)
    else:
        shards = _shards(tree)
        for number, member in enumerate(shards):
            with open_stream(io.BytesIO(tree.read(member)), tree.label(member), member.size) as shard:
                _read_shard(shard, member.path, samples, labels, splits)
            progress("reading shards", number + 1, len(shards))
    images, converted = decode_all(samples, lambda sample: sample, progress)
    return RawFaces(
        layout="WebDataset tars",
        images=images,
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits, dtype=np.uint8),
        official_split=False,
        notes=change_notes(converted),
    )


def _shards(tree: Tree) -> list[Member]:
    return [member for member in tree.members if member.path.suffix == ".tar" and is_tar(tree, member)]


def _has_samples(tree: Tree) -> bool:
    return any(member.path.suffix == ".cls" for member in tree.members)


def _read_shard(tree: Tree, path: PurePosixPath, samples: list[Sample], labels: list[int], splits: list[int]) -> None:
    split = path_split(path)
    code = POOLED if split == Split.TEST else split
    members = {member.path: member for member in tree.members}
    for member in tree.members:
        if member.path.suffix.lower() not in ENDINGS:
            continue
        answer = members.get(member.path.with_suffix(".cls"))
        if answer is None:
            raise DataError(f"{tree.label(member)}: a sample with no .cls beside it", hint="download the shard again")
        samples.append((tree.label(member), tree.read(member, limit=MAX_BYTES)))
        labels.append(_label(tree.read(answer, limit=MAX_BYTES), tree.label(answer)))
        splits.append(code)


def _label(content: bytes, where: str) -> int:
    text = content.strip()
    if len(text) != 1 or text not in b"0123456":
        raise DataError(f"{where}: label {text[:20]!r} is none of 0 to 6", hint="download the shard again")
    return CLASSES.index(ALPHABETICAL[int(text)])
