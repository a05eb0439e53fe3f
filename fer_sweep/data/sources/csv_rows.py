"""CSV forms, plain or in an archive: `fer2013.csv`, `icml_face_data.csv`, the competition's `train.csv`, FER+'s labels.

A row holds an image as 2,304 numbers in one column, `pixels`. Headers may have leading spaces and any order; commas,
semicolons, tabs or bars separate columns. The column `emotion` has numbers in FER2013's order, or names of classes. A
row's split is in its `Usage` column; without that column the file's own name, or its folder's, says it.

FER+ is ten people's votes a face, `fer2013new.csv`, joined onto the rows of FER2013's CSV. Rows are joined by position,
as its authors say; the names in its `Image name` column do not number the rows. Source: Barsoum et al., "Training Deep
Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution", ICMI 2016 (arXiv 1608.01041); the
majority rule is that of their published code.
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_sweep.data.dataset import RawFaces, Split
from fer_sweep.data.images import Progress
from fer_sweep.data.kinds import kind
from fer_sweep.data.names import (
    OFFICIAL_NAMES,
    UNDERSTOOD_SPLITS,
    ClassNames,
    class_code,
    few,
    left_out,
    order_note,
    quoted,
    split_code,
    split_notes,
    splits_by_name,
)
from fer_sweep.data.tree import Member, Tree, open_tree, readable, shown
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES, FER2013

FORM = "CSV files with pixels"
VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""The columns of votes; NF is "not a face"."""

_PIXELS = FER2013.height * FER2013.width
_DIGITS = re.compile(r"[0-9 ]*")
_LABELS = {text: label for label in range(len(CLASSES)) for text in (str(label), f"{label}.0")}
"""pandas writes `3.0` where a value of the column was missing."""
_SEPARATORS = ",;\t|"
_DAMAGED = "the file is damaged or truncated: download it again"
_PIXELS_HINT = (
    f"`pixels` must hold {_PIXELS:,} whole numbers from 0 to 255 with spaces between them ({FER2013.width}x"
    f"{FER2013.height}); give faces of another size as image folders; if the file is FER2013's, download it again"
)
_LONGEST_LINE = 65_536
"""Bytes. A face takes at most some 9,300."""


@dataclass
class _Rows:
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    usages: dict[str, Split] = field(default_factory=dict)
    """The split of each value of Usage."""
    names: ClassNames = field(default_factory=ClassNames)
    has_numbers: bool = False
    """Whether a label is a number."""
    blank: int = 0
    """Rows of empty columns, which were left out."""
    left_out: int = 0
    """Rows of a class that FER2013 lacks."""


def claims(tree: Tree) -> bool:
    """Whether some CSV has a column of pixels."""
    return any("pixels" in _columns(tree, member) for member in tree.members)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read the CSV whose Usage column has every split, or else all that have one, or else every labelled CSV."""
    tables = {member: columns for member in tree.members if "pixels" in (columns := _columns(tree, member))}
    labelled = [member for member, columns in tables.items() if "emotion" in columns]
    if not labelled:
        raise DataError(
            f"{tree.name}: the CSV has pixels but no `emotion` column, so there is nothing to learn from; it has "
            f"{few(quoted(name) for columns in tables.values() for name in columns)}",
            hint="give fer2013.csv, icml_face_data.csv, or the folder that holds train.csv; or rename the column of "
            "classes to emotion",
        )
    rows = _Rows()
    with_usage = [member for member in labelled if "usage" in tables[member]]
    if with_usage:
        chosen = _read_with_usage(tree, with_usage, tables, rows, progress)
        first = shown(chosen[0].path.name)
        reason = f"{first} is complete" if set(rows.splits) == set(Split) else f"{first} has a Usage column"
        notes = split_notes({u: split for u, split in rows.usages.items() if u not in OFFICIAL_NAMES}, plain=())
    else:
        chosen, reason = labelled, "they have no labels"
        splits, name_notes = splits_by_name(tree.name, [member.path for member in chosen])
        for member in chosen:
            _read_file(tree, member, tables[member], rows, progress, splits[member.path])
        notes = ("there is no Usage column", *name_notes)
    if not rows.images:
        raise DataError(f"{tree.label(chosen[0])}: a header and no rows", hint="download the file again")
    others = [shown(member.path.name) for member in tables if member not in chosen]
    separators = {separator for member in chosen if (separator := separator_of(_header(tree, member))) != ","}
    official = bool(with_usage) and rows.usages.keys() <= OFFICIAL_NAMES.keys()
    more_notes = [order_note(CLASSES)] if rows.has_numbers and not official else []
    more_notes += [f"columns are separated by {separator!r}" for separator in sorted(separators)]
    if rows.blank:
        more_notes.append(f"{rows.blank:,} empty rows were left out")
    return RawFaces(
        layout="CSV with a Usage column" if with_usage else "CSV, one file a split",
        images=np.stack(rows.images).reshape(-1, *FER2013.stored_shape),
        labels=np.array(rows.labels, dtype=np.int64),
        splits=np.array(rows.splits, dtype=np.uint8),
        official_split=official,
        notes=(
            *([f"left out, since {reason}: {few(others)}"] if others else []),
            *notes,
            *rows.names.notes(),
            *more_notes,
            *left_out(tree, tables),
        ),
        keeps_csv_rows=bool(with_usage) and len(chosen) == 1 and not rows.left_out,
    )


def relabel(faces: RawFaces, path: Path) -> RawFaces:
    """Replace FER2013's labels by FER+'s majority, and leave out images whose majority is none of its classes.

    Raises:
        DataError: The file does not fit the faces row by row.
    """
    if not faces.keeps_csv_rows:
        raise DataError(
            "FER+ labels belong to the rows of FER2013's CSV, and this source does not keep them",
            hint="prepare fer2013.csv or icml_face_data.csv with --ferplus",
        )
    rows = _votes(path)
    if len(rows) != len(faces.images):
        raise DataError(
            f"{path.name}: {len(rows):,} rows of votes for {len(faces.images):,} images",
            hint="rows are joined by position, so both files must be complete",
        )
    labels = np.zeros(len(rows), dtype=np.int64)
    keep = np.zeros(len(rows), dtype=bool)
    left_out: Counter[str] = Counter()
    for index, (line, usage, votes) in enumerate(rows):
        if OFFICIAL_NAMES.get(usage.lower()) != faces.splits[index]:
            raise DataError(
                f"{path.name}, line {line}: Usage {usage[:20]!r} is not that of the image in the same row",
                hint="the two files are not in the same order: take both as they were published",
            )
        winner = majority(votes)
        code = class_code(winner)
        if code is None:
            left_out[winner] += 1
        else:
            labels[index], keep[index] = code, True
    changed = int((keep & (labels != faces.labels)).sum())
    counts = ", ".join(f"{left_out[name]:,} {name}" for name in VOTES if left_out[name])
    notes = [f"labels are FER+'s majority votes; {changed:,} of {int(keep.sum()):,} differ from FER2013's"]
    if counts:
        notes.append(f"left out by FER+'s votes: {counts} (NF: not a face)")
    return replace(
        faces,
        layout=f"{faces.layout}, FER+ labels",
        images=faces.images[keep],
        labels=labels[keep],
        splits=faces.splits[keep],
        notes=(*faces.notes, *notes),
    )


def majority(votes: dict[str, int]) -> str:
    """The one column that more than half of the votes are for, once single votes are dropped as slips.

    >>> majority({"anger": 6, "sadness": 3, "fear": 1})
    'anger'
    >>> majority({"anger": 5, "sadness": 5})
    'unknown'
    """
    kept = {name: count for name, count in votes.items() if count > 1}
    best = max(kept, key=lambda name: kept[name], default="unknown")
    return best if 2 * kept.get(best, 0) > sum(kept.values()) else "unknown"


def _votes(path: Path) -> list[tuple[int, str, dict[str, int]]]:
    """Line, Usage and votes of every row of FER+'s file, in order."""
    wanted = {name.lower() for name in ("Usage", *VOTES)}
    with open_tree(path) as tree:
        member = next((member for member in tree.members if wanted <= _columns(tree, member).keys()), None)
        if member is None:
            other = kind(tree.head(tree.members[0])) if len(tree.members) == 1 else None
            if other is not None:
                raise DataError(f"{path.name}: it is {other[0]}", hint=other[1])
            raise DataError(
                f"{path.name}: not FER+'s labels: no CSV with columns Usage, {', '.join(VOTES)}",
                hint="give fer2013new.csv as its authors publish it",
            )
        columns, found = _columns(tree, member), []
        for line, row in _lines(tree, member):
            try:
                votes = {name: int(row[columns[name.lower()]]) for name in VOTES}
                found.append((line, row[columns["usage"]].strip(), votes))
            except (IndexError, ValueError):
                raise _bad_row(path.name, line, "ten numbers of votes expected") from None
    return found


def _columns(tree: Tree, member: Member) -> dict[str, int]:
    """The positions of a CSV's columns by their names in small letters; none of another file."""
    if member.path.suffix.lower() not in (".csv", ".tsv", ".txt", ""):
        return {}
    line = _header(tree, member)
    names = [name.strip().strip('"').strip().lower() for name in line.split(separator_of(line))]
    return {name: names.index(name) for name in names}


def _header(tree: Tree, member: Member) -> str:
    return tree.head(member, 4096).decode("utf-8-sig", errors="replace").partition("\n")[0]


def separator_of(header: str) -> str:
    """What separates the columns of a header: the most frequent one, or a comma."""
    return max(_SEPARATORS, key=header.count)


def _read_with_usage(
    tree: Tree, members: list[Member], tables: dict[Member, dict[str, int]], rows: _Rows, progress: Progress
) -> list[Member]:
    """Read files until every split is there, each once; returns those that were read."""
    chosen: list[Member] = []
    for member in members:
        before, first_row = set(rows.splits), len(rows.splits)
        if before == set(Split):
            break
        chosen.append(member)
        _read_file(tree, member, tables[member], rows, progress)
        twice = before & set(rows.splits[first_row:])
        if twice:
            names = ", ".join(Split(split).name.lower() for split in sorted(twice))
            raise DataError(
                f"{tree.name}: {few(shown(m.path.name) for m in chosen)} have a Usage column each, and {names} is in "
                "more than one of them",
                hint="they may be copies of each other: give the path of the file that is meant",
            )
    return chosen


def _read_file(
    tree: Tree, member: Member, columns: dict[str, int], rows: _Rows, progress: Progress, split: Split = Split.TRAIN
) -> None:
    """Read one file; ``split`` is for one without a Usage column."""
    label = tree.label(member)
    done = 0
    for number, (line, row) in enumerate(_lines(tree, member)):
        if not any(cell.strip(" \t") for cell in row):  # a line break in a cell is damage
            rows.blank += 1
            continue
        try:
            usage = row[columns["usage"]].strip() if "usage" in columns else None
            emotion = row[columns["emotion"]].strip()
            image = parse_pixels(row[columns["pixels"]])
        except IndexError:
            raise _bad_row(label, line, f"only {len(row)} columns") from None
        except ValueError as error:
            raise _bad_row(label, line, str(error), _PIXELS_HINT) from None
        code = _LABELS.get(emotion)
        if code is not None:
            rows.has_numbers = True
        else:
            code = rows.names.label(emotion, f"{label}, line {line}: emotion")
        if usage is not None:
            split = _split(usage, f"{label}, line {line}")
            rows.usages[usage.lower()] = split
        if code is None:
            rows.left_out += 1
        else:
            rows.images.append(image)
            rows.labels.append(code)
            rows.splits.append(split)
        done += sum(map(len, row))
        if number % 500 == 0:
            progress("reading rows", min(done, member.size), member.size)
    progress("reading rows", member.size, member.size)


def _lines(tree: Tree, member: Member) -> Iterator[tuple[int, list[str]]]:
    """Rows after the header, each with the number of its line, empty lines left out."""
    label, separator = tree.label(member), separator_of(_header(tree, member))
    with tree.open(member) as stream:
        for number in itertools.count(1):
            line = stream.readline(_LONGEST_LINE)
            if not line:
                return
            if b"\r" in line.rstrip(b"\r\n"):
                raise _bad_row(
                    label, number, "lines end with CR alone", "save it with LF or CR LF at the ends of lines"
                )
            if len(line) == _LONGEST_LINE:
                raise _bad_row(label, number, f"over {_LONGEST_LINE:,} characters in one row")
            with readable(f"{label}, line {number}"):
                # A row is a line: one of several lines could have any number of fields.
                row = next(csv.reader([line.decode()], delimiter=separator), [])
            if number > 1 and row:
                yield number, row


def parse_pixels(text: str) -> npt.NDArray[np.uint8]:
    """2,304 numbers from 0 to 255, with spaces between them: (2304,). Anything else is a ValueError.

    >>> parse_pixels("7 255 " * 1152)[:3]
    array([  7, 255,   7], dtype=uint8)
    """
    if not _DIGITS.fullmatch(text):
        raise ValueError("pixels that are not whole numbers from 0 to 255")
    values = np.fromstring(text, dtype=np.int64, sep=" ")
    if len(values) != _PIXELS:
        raise ValueError(f"{len(values)} pixels in place of {_PIXELS}")
    if values.max() > 255:
        raise ValueError("pixels that are not whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _split(usage: str, where: str) -> Split:
    found = split_code(usage)
    if found is None:
        raise DataError(
            f"{where}: Usage {shown(usage)[:20]!r} is none of Training, PublicTest, PrivateTest",
            hint=f"other words are understood too: {UNDERSTOOD_SPLITS}",
        )
    return found


def _bad_row(label: str, line: int, what: str, hint: str = _DAMAGED) -> DataError:
    return DataError(f"{label}, line {line}: {what}", hint=hint)
