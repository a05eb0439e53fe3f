"""Image folders, `<split>/<class>/<image>`, plain or in an archive: Kaggle's FER2013 and its kin.

In Kaggle's ("msambare") the folder `test` pools PublicTest and PrivateTest, but every file name begins with the
official split it belongs to, which is what counts then.

Class folders may have numbers for names if a file `classnames.txt` states their order, a name a line, from 0 on.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from fer_sweep.data.dataset import RawFaces, Split
from fer_sweep.data.images import ENDINGS, MAX_IMAGE_BYTES, Progress, decode_all
from fer_sweep.data.kinds import CONVERT
from fer_sweep.data.names import (
    NUMBERINGS,
    OFFICIAL_NAMES,
    ClassNames,
    Order,
    class_code,
    class_number,
    few,
    left_out,
    order_file,
    outside_class,
    path_split,
    quoted,
    splits_by_name,
)
from fer_sweep.data.tree import Member, Tree, shown
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

FORM = "class folders of images"


def claims(tree: Tree) -> bool:
    """Whether some image is in a folder named for a class, or several are in numbered folders."""
    if any(member.path.suffix == ".cls" for member in tree.members):
        return False  # a WebDataset tar, whose .cls files have the labels
    return any(_is_image(m) and class_code(m.path.parent.name) is not None for m in tree.members) or _is_numbered(tree)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read every image, with its class from its folder and its split from its name or its folder."""
    labelled, class_notes = _labelled(tree)
    members, root_notes = _one_root(list(labelled))
    splits, official, split_notes = _splits(tree.name, members)
    images, changes = decode_all(members, lambda m: (tree.label(m), tree.read(m, limit=MAX_IMAGE_BYTES)), progress)
    return RawFaces(
        layout="image folders, one a class",
        images=images,
        labels=np.array([labelled[member] for member in members], dtype=np.int64),
        splits=np.array(splits, dtype=np.uint8),
        official_split=official,
        notes=(*root_notes, *class_notes, *changes, *split_notes, *left_out(tree, _in_class_folders(tree, members))),
    )


def _in_class_folders(tree: Tree, images: list[Member]) -> set[Member]:
    folders = {image.path.parent for image in images}
    return {member for member in tree.members if member.path.parent in folders}


def _is_image(member: Member) -> bool:
    return member.path.suffix.lower() in ENDINGS


def _labelled(tree: Tree) -> tuple[dict[Member, int], list[str]]:
    """The label of each image that has a class, and notes on how it was read and on what was left out."""
    labelled: dict[Member, int] = {}
    names, order = ClassNames(), _order(tree) if _is_numbered(tree) else None
    other_kinds: Counter[str] = Counter()
    elsewhere = 0
    beside = {
        m.path.parent.parent
        for m in tree.members
        if _is_image(m) and class_code(_class_name(m.path.parent, order)) is not None
    }
    for member in tree.members:
        folder = member.path.parent
        is_beside = folder.parent in beside and folder != PurePosixPath()
        if not _is_image(member):
            if is_beside:
                other_kinds[shown(member.path.suffix.lower())[:20] or "no ending"] += 1
        elif is_beside or outside_class(folder.name) is not None:
            label = names.label(_class_name(folder, order), tree.label(member))
            if label is not None:
                labelled[member] = label
        else:
            elsewhere += 1
    notes = [*names.notes()]
    if order is not None:
        texts = ", ".join(f"{number} {name}" for number, name in enumerate(order))
        notes.append(f"class folders have numbers, which were read as classnames.txt says: {texts}")
    if other_kinds:
        kinds = few(f"{kind} {count:,}" for kind, count in other_kinds.items())
        notes.append(f"{other_kinds.total():,} files of kinds that are not read were left out: {kinds}; {CONVERT}")
    if elsewhere:
        notes.append(f"{elsewhere:,} images that lie in no class folder were left out")
    return labelled, notes


def _is_numbered(tree: Tree) -> bool:
    """Whether class folders have numbers: two at least, and no folder names a class."""
    folders = {m.path.parent for m in tree.members if _is_image(m)}
    numbers = {class_number(folder.name) for folder in folders} - {None}
    return len(numbers) > 1 and not any(class_code(part) is not None for folder in folders for part in folder.parts)


def _order(tree: Tree) -> Order:
    """What the numbers of class folders mean; DataError if nothing says it."""
    folders = {m.path.parent.name for m in tree.members if _is_image(m)}
    numbers = {number: name for name in folders if (number := class_number(name)) is not None}
    hint = (
        "rename the folders (angry or 0_angry), or put a file classnames.txt beside them with the class of each "
        "number, one a line, from 0 on"
    )
    order = order_file(tree)
    if order is None:
        raise DataError(
            f"{tree.name}: class folders have numbers ({few(map(quoted, numbers.values()))}) and nothing states what "
            f"they mean: {NUMBERINGS}",
            hint=f"{hint}; FER2013's own order is {', '.join(CLASSES)}",
        )
    if set(numbers) != set(range(len(order))):
        raise DataError(
            f"{tree.name}: classnames.txt names the numbers 0 to {len(order) - 1}, and the class folders are "
            f"{few(map(quoted, numbers.values()))}",
            hint=hint,
        )
    return order


def _class_name(folder: PurePosixPath, order: Sequence[str] | None) -> str:
    number = class_number(folder.name)
    return folder.name if order is None or number is None else order[number]


def _one_root(members: list[Member]) -> tuple[list[Member], tuple[str, ...]]:
    # One well-known archive holds everything twice, once a level deeper.
    depths: dict[str, int] = {}
    for member in members:
        split = member.path.parent.parent.name.lower()
        depths[split] = min(depths.get(split, len(member.path.parts)), len(member.path.parts))
    kept = [m for m in members if len(m.path.parts) == depths[m.path.parent.parent.name.lower()]]
    twice = len(members) - len(kept)
    return kept, (f"{twice:,} images in deeper folders of the same split were left out",) if twice else ()


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
