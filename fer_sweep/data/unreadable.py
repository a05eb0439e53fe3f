"""Why a source is no data set that fersweep reads: what is there instead, and what to do about it."""

from collections import Counter
from pathlib import PurePosixPath

from fer_sweep.data.images import ENDINGS
from fer_sweep.data.kinds import CONVERT, kind
from fer_sweep.data.names import UNDERSTOOD_CLASSES, class_code, few, quoted
from fer_sweep.data.sources.csv_rows import separator_of
from fer_sweep.data.tree import Member, Tree, shown
from fer_sweep.errors import DataError
from fer_sweep.records import FER2013

_PIXELS = FER2013.height * FER2013.width
_HEADER = "emotion,pixels,Usage"
_MOST_LOOKED_AT = 50
"""Files, since each has to be opened."""
_HEAD = 65_536
"""Bytes: a header with a column a pixel fits in."""
_DOCUMENTS = frozenset({".html", ".htm", ".xml", ".json", ".pdf", ".ipynb", ".db"})
"""What lies beside data without being meant as it."""


def unreadable(tree: Tree) -> DataError:
    """The error for a source that no reader claims."""
    if any(member.path == PurePosixPath("xl/workbook.xml") for member in tree.members):
        return DataError(f"{tree.name}: it is an Excel workbook", hint=f"save it as CSV (UTF-8) with columns {_HEADER}")
    images = [member for member in tree.members if member.path.suffix.lower() in ENDINGS]
    if images and len(tree.members) == 1 and len(images[0].path.parts) == 1:
        return DataError(f"{tree.name}: one image is no data set", hint="`fersweep predict` takes pictures")
    if images:
        return _no_class(tree.name, {image.path.parent for image in images})
    for member in tree.members[:_MOST_LOOKED_AT]:
        if len(tree.members) == 1 or member.path.suffix.lower() not in _DOCUMENTS:
            problem = _problem(tree, member)
            if problem is not None:
                return DataError(f"{tree.label(member)}: {problem[0]}", hint=problem[1])
    others = Counter(shown(m.path.suffix.lower()) for m in tree.members if class_code(m.path.parent.name) is not None)
    if others:
        kinds = few(f"{ending or 'no ending'} {count:,}" for ending, count in others.items())
        return DataError(
            f"{tree.name}: the class folders hold no images of a kind that is read: {kinds}",
            hint=f"{CONVERT}; endings that are read: {', '.join(sorted(ENDINGS))}",
        )
    found = ", ".join(shown(member.path) for member in tree.members[:5]) or "nothing"
    return DataError(
        f"{tree.name}: no data set that fersweep knows; it holds {found}",
        hint="known are image folders <split>/<class>/<image>, fer2013.csv and its kin, Hugging Face parquet and "
        "WebDataset tars, each plain or in an archive; FER+ labels go with a CSV (--ferplus)",
    )


def _problem(tree: Tree, member: Member) -> tuple[str, str] | None:
    """What a file is, and what to do; None if nothing is known of it."""
    head = tree.head(member, _HEAD)
    suffix = member.path.suffix.lower()
    if (found := kind(head)) is not None:
        return f"it is {found[0]}", found[1]
    if suffix == ".parquet":
        return "it is no parquet file", "it is damaged: download it again"
    return _csv_problem(head) if suffix in (".csv", ".tsv", ".txt") else None


def _csv_problem(head: bytes) -> tuple[str, str] | None:
    utf16 = {
        "UTF-16": head.startswith((b"\xff\xfe", b"\xfe\xff")),
        "UTF-16BE": not head[:64:2].strip(b"\0"),
        "UTF-16LE": not head[1:64:2].strip(b"\0"),
    }
    for encoding, found in utf16.items():
        if found:
            return f"it is text in {encoding}", f"save it as UTF-8: iconv -f {encoding} -t UTF-8 OLD.csv > NEW.csv"
    first, _, _ = head.decode("utf-8-sig", errors="replace").partition("\n")
    first = first.rstrip("\r")
    if not first.replace("\t", " ").isprintable():
        return None
    fields = [field.strip().strip('"') for field in first.split(separator_of(first))]
    if first.lower().startswith("sep="):
        return "it begins with a line for Excel (sep=)", "remove that line"
    if len(fields) >= _PIXELS // 2:
        return (
            "it has one column a pixel",
            f"join the {_PIXELS:,} columns to one, `pixels`, with spaces between the numbers",
        )
    if any(len(field.split()) == _PIXELS for field in fields):
        return "it has no header", f"name the columns in a first line of their own, such as {_HEADER}"
    if len(fields) > 1:
        return (
            f"it is a CSV without a column `pixels`; its columns are {few(map(quoted, fields))}",
            f"fersweep reads the columns {_HEADER} of FER2013: rename yours, or give the images in class folders",
        )
    return None


def _no_class(source: str, folders: set[PurePosixPath]) -> DataError:
    within = [folder for folder in folders if any(class_code(part) is not None for part in folder.parts)]
    if within:
        return DataError(
            f"{source}: images lie in folders below those of classes: {few(quoted(str(folder)) for folder in within)}",
            hint="the folder of an image names its class, and the one above it the split: <split>/<class>/<image>",
        )
    names = {folder.name or "the top folder" for folder in folders}
    return DataError(
        f"{source}: images lie in folders that name no class: {few(quoted(name) for name in names)}",
        hint=f"the folder of an image names its class: <split>/<class>/<image>; {UNDERSTOOD_CLASSES}",
    )
