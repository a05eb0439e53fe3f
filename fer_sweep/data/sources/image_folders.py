"""Image folders, `<split>/<class>/<image>`, plain or in an archive: Kaggle's FER2013 and its kin.

In Kaggle's ("msambare") the folder `test` pools PublicTest and PrivateTest, but every file name begins with the
official split it belongs to, which is what counts then.
"""

import numpy as np

from fer_sweep.data.dataset import Split
from fer_sweep.data.images import ENDINGS, MAX_BYTES, Progress, change_notes, decode_all
from fer_sweep.data.layout import OFFICIAL_NAMES, OUTSIDE, RawFaces, class_code, nearest_class, split_code
from fer_sweep.data.tree import Member, Tree
from fer_sweep.errors import DataError


def claims(tree: Tree) -> bool:
    """Whether some image lies in a folder named for a class."""
    return any(_is_image(m) and class_code(m.path.parent.name) is not None for m in tree.members)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read every image, with its class from its folder and its split from its name or its folder.

    Raises:
        DataError: A class folder is none of the seven, or an image cannot be read.
    """
    members, left_out = _check_classes(tree, [m for m in tree.members if _is_image(m)])
    members, notes = _one_root(members)
    splits, official, split_note = _splits(members)
    images, converted = decode_all(
        members, lambda m: (tree.label(m), tree.read(m, limit=MAX_BYTES)), progress, threaded_read=tree.threads
    )
    return RawFaces(
        layout="image folders, one a class",
        images=images,
        labels=np.array([class_code(m.path.parent.name) for m in members], dtype=np.int64),
        splits=np.array(splits, dtype=np.uint8),
        official_split=official,
        notes=(*notes, *left_out, *change_notes(converted), split_note),
    )


def _is_image(member: Member) -> bool:
    return member.path.suffix.lower() in ENDINGS


def _splits(members: list[Member]) -> tuple[list[Split], bool, str]:
    """Every image's split, whether they are the official ones, and a note that says so."""
    by_folder = [_folder_split(m) for m in members]
    by_name = [OFFICIAL_NAMES.get(m.path.name.partition("_")[0].lower()) for m in members]
    named = [split for split in by_name if split is not None]
    in_folders = [Split.TRAIN if split is None else split for split in by_folder]
    if len(named) < len(members):
        return in_folders, False, "the splits are the folders', not FER2013's official ones"
    # Whoever divided FER2013 anew and kept the names must get the new division, or training would see its test.
    moved = sum(
        folder is not None and (folder == Split.TRAIN) != (name == Split.TRAIN)
        for folder, name in zip(by_folder, named, strict=True)
    )
    if moved:
        return in_folders, False, f"{moved:,} images lie in another split than their names say: the folders were taken"
    return named, True, "the official split was recovered from the file names"


def _folder_split(member: Member) -> Split | None:
    """What the nearest folder above the class folder says, if any names a split."""
    above = reversed(member.path.parts[:-2])
    return next((found for name in above if (found := split_code(name)) is not None), None)


def _one_root(members: list[Member]) -> tuple[list[Member], tuple[str, ...]]:
    # One well-known archive holds everything twice, once a level deeper.
    depths: dict[str, int] = {}
    for member in members:
        split = member.path.parent.parent.name.lower()
        depths[split] = min(depths.get(split, len(member.path.parts)), len(member.path.parts))
    kept = [m for m in members if len(m.path.parts) == depths[m.path.parent.parent.name.lower()]]
    twice = len(members) - len(kept)
    return kept, (f"{twice:,} images in deeper folders of the same split were left out",) if twice else ()


def _check_classes(tree: Tree, members: list[Member]) -> tuple[list[Member], tuple[str, ...]]:
    kept = []
    outside: dict[str, int] = {}
    elsewhere = 0
    beside = {m.path.parent.parent for m in members if class_code(m.path.parent.name) is not None}
    for member in members:
        folder = member.path.parent.name
        if class_code(folder) is not None:
            kept.append(member)
        elif folder.lower() in OUTSIDE:
            outside[folder.lower()] = outside.get(folder.lower(), 0) + 1
        elif member.path.parent.parent in beside:
            raise DataError(
                f"{tree.label(member)}: {folder!r} is none of the seven classes", hint=nearest_class(folder)
            )
        else:
            elsewhere += 1
    notes = tuple(f"{count:,} images of class {name} were left out" for name, count in sorted(outside.items()))
    if elsewhere:
        notes += (f"{elsewhere:,} images that lie in no class folder were left out",)
    return kept, notes
