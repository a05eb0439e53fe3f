"""Image folders, `<split>/<class>/<image>`, plain or in an archive: Kaggle's FER2013 and its kin.

In Kaggle's ("msambare") the folder `test` pools PublicTest and PrivateTest, but every file name begins with the
official split it belongs to, which is what counts then.
"""

from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from fer_sweep.data.dataset import Split
from fer_sweep.data.images import ENDINGS, MAX_BYTES, Progress, change_notes, decode_all
from fer_sweep.data.layout import RawFaces
from fer_sweep.data.limits import shown
from fer_sweep.data.names import (
    OFFICIAL_NAMES,
    class_code,
    class_notes,
    outside_class,
    outside_notes,
    path_split,
    splits_by_name,
    unknown_class,
)
from fer_sweep.data.tree import Member, Tree

_MOST_KINDS = 8
"""Named in a note."""


def claims(tree: Tree) -> bool:
    """Whether some image lies in a folder named for a class."""
    return any(_is_image(m) and class_code(m.path.parent.name) is not None for m in tree.members)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read every image, with its class from its folder and its split from its name or its folder.

    Raises:
        DataError: A folder's class or split is not known, or an image cannot be read.
    """
    members, class_folder_notes = _check_classes(tree)
    members, root_notes = _one_root(members)
    splits, official, split_notes = _splits(tree.name, members)
    images, changes = decode_all(
        members, lambda m: (tree.label(m), tree.read(m, limit=MAX_BYTES)), progress, threaded_read=tree.threads
    )
    return RawFaces(
        layout="image folders, one a class",
        images=images,
        labels=np.array([class_code(m.path.parent.name) for m in members], dtype=np.int64),
        splits=np.array(splits, dtype=np.uint8),
        official_split=official,
        notes=(*root_notes, *class_folder_notes, *change_notes(changes), *split_notes),
    )


def _is_image(member: Member) -> bool:
    return member.path.suffix.lower() in ENDINGS


def _splits(source: str, members: list[Member]) -> tuple[list[Split], bool, tuple[str, ...]]:
    """Every image's split, whether they are the official ones, and notes that say so."""
    folders = [member.path.parent.parent for member in members]
    by_name = [OFFICIAL_NAMES.get(m.path.name.partition("_")[0].lower()) for m in members]
    named = [split for split in by_name if split is not None]
    note = "the splits are not FER2013's official ones"
    if len(named) == len(members):
        # Images that were divided anew and kept their names have the new division, or training would see its test.
        by_folder = {folder: found[0] for folder in set(folders) if (found := path_split(folder)) is not None}
        moved = sum(
            (by_folder.get(folder, name) == Split.TRAIN) != (name == Split.TRAIN)
            for folder, name in zip(folders, named, strict=True)
        )
        if not moved:
            return named, True, ("the official split was recovered from the file names",)
        note = f"{moved:,} images lie in another split than their names say: the folders were taken"
    splits, notes = splits_by_name(source, set(folders))
    return [splits[folder] for folder in folders], False, (*notes, note)


def _one_root(members: list[Member]) -> tuple[list[Member], tuple[str, ...]]:
    # One well-known archive holds everything twice, once a level deeper.
    depths: dict[str, int] = {}
    for member in members:
        split = member.path.parent.parent.name.lower()
        depths[split] = min(depths.get(split, len(member.path.parts)), len(member.path.parts))
    kept = [m for m in members if len(m.path.parts) == depths[m.path.parent.parent.name.lower()]]
    twice = len(members) - len(kept)
    return kept, (f"{twice:,} images in deeper folders of the same split were left out",) if twice else ()


def _check_classes(tree: Tree) -> tuple[list[Member], tuple[str, ...]]:
    """The images that have a class, and notes on how it was read and on what was left out."""
    kept: list[Member] = []
    outside: Counter[str] = Counter()
    other_kinds: Counter[str] = Counter()
    elsewhere = 0
    beside = {m.path.parent.parent for m in tree.members if _is_image(m) and class_code(m.path.parent.name) is not None}
    for member in tree.members:
        folder = member.path.parent
        if not _is_image(member):
            if folder.parent in beside and folder != PurePosixPath():
                other_kinds[member.path.suffix.lower()] += 1
        elif class_code(folder.name) is not None:
            kept.append(member)
        elif (name := outside_class(folder.name)) is not None:
            outside[name] += 1
        elif folder.parent in beside:
            raise unknown_class(tree.label(member), folder.name)
        else:
            elsewhere += 1
    notes = (*class_notes({m.path.parent.name for m in kept}), *outside_notes(outside), *_kind_notes(other_kinds))
    if elsewhere:
        notes += (f"{elsewhere:,} images that lie in no class folder were left out",)
    return kept, notes


def _kind_notes(counts: Counter[str]) -> tuple[str, ...]:
    if not counts:
        return ()
    kinds = [f"{shown(kind)[:20] or 'no ending'} {count:,}" for kind, count in counts.most_common()]
    more = f" and {len(kinds) - _MOST_KINDS} more kinds" if len(kinds) > _MOST_KINDS else ""
    listed = ", ".join(kinds[:_MOST_KINDS])
    return (f"{counts.total():,} files of kinds that are not read were left out: {listed}{more}",)
