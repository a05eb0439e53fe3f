"""CSV forms, plain or in an archive: `fer2013.csv`, `icml_face_data.csv`, and the competition's `train.csv`.

A row holds an image as 2,304 numbers in one column, `pixels`. Headers may have leading spaces and any order. A row's
split is in its `Usage` column; without that column the file's own name, or its folder's, says it.
"""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_sweep.data.dataset import Split
from fer_sweep.data.images import Progress
from fer_sweep.data.layout import RawFaces
from fer_sweep.data.limits import shown
from fer_sweep.data.names import OFFICIAL_NAMES, UNDERSTOOD_SPLITS, split_code, split_notes, splits_by_name
from fer_sweep.data.tree import Member, Tree, readable
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES, FER2013

_PIXELS = FER2013.height * FER2013.width
_HEAD = 4096
"""Bytes that are enough for a header."""
_REPORT_EVERY = 500
"""Rows."""
_LONGEST_LINE = 65_536
"""Characters. A face takes at most some 9,300."""


@dataclass(frozen=True)
class _Columns:
    pixels: int
    emotion: int | None
    usage: int | None


@dataclass
class _Rows:
    images: list[npt.NDArray[np.uint8]]
    labels: list[int]
    splits: list[int]
    usages: dict[str, Split]
    """Splits by the value of Usage that stands for them."""


def claims(tree: Tree) -> bool:
    """Whether some CSV has a column of pixels."""
    return any(_header(tree, member) is not None for member in tree.members)


def read(tree: Tree, progress: Progress) -> RawFaces:
    """Read the CSV whose Usage column has every split, or else all that have one, or else every labelled CSV.

    Raises:
        DataError: No file has labels, a file's split is not known, two files with Usage hold the same split, or a row
            is not a labelled face; the message names file and line.
    """
    headers = {member: found for member in tree.members if (found := _header(tree, member)) is not None}
    labelled = [m for m, c in headers.items() if c.emotion is not None]
    with_usage = [m for m in labelled if headers[m].usage is not None]
    if not labelled:
        raise DataError(
            f"{tree.name}: the CSV has pixels but no `emotion` column, so there is nothing to learn from",
            hint="give fer2013.csv, icml_face_data.csv, or the folder that holds train.csv",
        )
    rows = _Rows([], [], [], {})
    chosen: list[Member] = []
    reason = "they have no labels"
    if with_usage:
        while len(chosen) < len(with_usage) and set(rows.splits) != set(Split):
            chosen.append(with_usage[len(chosen)])
            _read_with_usage(tree, chosen, headers, rows, progress)
        first = shown(chosen[0].path.name)
        reason = f"{first} is complete" if set(rows.splits) == set(Split) else f"{first} has a Usage column"
        notes = split_notes({usage: split for usage, split in rows.usages.items() if usage not in OFFICIAL_NAMES})
    else:
        chosen = labelled
        splits, name_notes = splits_by_name(tree.name, [member.path for member in chosen])
        for member in chosen:
            _read_file(tree, member, headers[member], rows, progress, splits[member.path])
        notes = ("there is no Usage column", *name_notes)
    if not rows.images:
        raise DataError(f"{tree.label(chosen[0])}: a header and no rows", hint="download the file again")
    return RawFaces(
        layout="CSV with a Usage column" if with_usage else "CSV, one file a split",
        images=np.stack(rows.images).reshape(-1, *FER2013.stored_shape),
        labels=np.array(rows.labels, dtype=np.int64),
        splits=np.array(rows.splits, dtype=np.uint8),
        official_split=bool(with_usage) and rows.usages.keys() <= OFFICIAL_NAMES.keys(),
        notes=(*_note_on_others((m for m in headers if m not in chosen), reason), *notes),
        keeps_csv_rows=bool(with_usage) and len(chosen) == 1,
    )


def _read_with_usage(
    tree: Tree, chosen: list[Member], headers: dict[Member, _Columns], rows: _Rows, progress: Progress
) -> None:
    """Read the last of some files, whose splits must be in none of those before."""
    before, first_row = set(rows.splits), len(rows.splits)
    _read_file(tree, chosen[-1], headers[chosen[-1]], rows, progress)
    twice = before & set(rows.splits[first_row:])
    if twice:
        names = ", ".join(Split(split).name.lower() for split in sorted(twice))
        raise DataError(
            f"{tree.name}: {', '.join(shown(m.path.name) for m in chosen)} have a Usage column each, and {names} is in "
            "more than one of them",
            hint="they may be copies of each other: give the path of the file that is meant",
        )


def _header(tree: Tree, member: Member) -> _Columns | None:
    if member.path.suffix.lower() not in (".csv", ".txt", ""):
        return None
    line = tree.head(member, _HEAD).decode("utf-8-sig", errors="replace").partition("\n")[0]
    names = [name.strip().strip('"').strip().lower() for name in line.split(",")]
    if "pixels" not in names:
        return None
    return _Columns(
        pixels=names.index("pixels"),
        emotion=names.index("emotion") if "emotion" in names else None,
        usage=names.index("usage") if "usage" in names else None,
    )


def _note_on_others(others: Iterable[Member], reason: str) -> tuple[str, ...]:
    names = ", ".join(shown(member.path.name) for member in others)
    return (f"left out, since {reason}: {names}",) if names else ()


def _read_file(
    tree: Tree, member: Member, columns: _Columns, rows: _Rows, progress: Progress, split: Split = Split.TRAIN
) -> None:
    """Read one file; ``split`` is that of its rows where it has no Usage column."""
    label = tree.label(member)
    done = 0
    for number, (line, row) in enumerate(_lines(tree, member)):
        try:
            text = row[columns.pixels]
            emotion = row[columns.emotion or 0]
            usage = row[columns.usage].strip() if columns.usage is not None else None
        except IndexError:
            raise _bad_row(label, line, f"only {len(row)} columns") from None
        try:
            rows.images.append(parse_pixels(text))
        except ValueError as error:
            raise _bad_row(label, line, str(error)) from None
        rows.labels.append(_label(emotion, label, line))
        rows.splits.append(split if usage is None else _usage(usage, rows, label, line))
        done += len(text)
        if number % _REPORT_EVERY == 0:
            progress("reading rows", min(done, member.size), member.size)
    progress("reading rows", member.size, member.size)


def _lines(tree: Tree, member: Member) -> Iterator[tuple[int, list[str]]]:
    """Rows after the header, each with the number of its line, empty lines left out."""
    label = tree.label(member)
    with tree.open(member) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        for number in itertools.count(1):
            with readable(f"{label}, line {number}"):
                line = text.readline(_LONGEST_LINE)
            if not line:
                return
            if len(line) == _LONGEST_LINE:
                raise _bad_row(label, number, f"over {_LONGEST_LINE:,} characters in one row")
            with readable(f"{label}, line {number}"):
                row = next(csv.reader([line]), [])  # a row is a line: one that went on could have any number of fields
            if number > 1 and row:
                yield number, row


def parse_pixels(text: str) -> npt.NDArray[np.uint8]:
    """2,304 numbers from 0 to 255, parted by spaces: (2304,).

    Raises:
        ValueError: Something else stands there, or another number of them.

    >>> parse_pixels("7 255 " * 1152)[:3]
    array([  7, 255,   7], dtype=uint8)
    """
    # Three spaces in front, so that a number's hundreds may be looked up without leaving the array.
    codes = np.frombuffer(b"   " + text.encode("ascii", errors="replace") + b" ", dtype=np.uint8)
    digits = codes - ord("0")
    is_digit = digits < 10
    if not (is_digit | (codes == ord(" "))).all():
        raise ValueError("pixels that are not whole numbers from 0 to 255")
    ends = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])
    if len(ends) != _PIXELS:
        raise ValueError(f"{len(ends)} pixels in place of {_PIXELS}")
    tens = is_digit[ends - 1]
    hundreds = tens & is_digit[ends - 2]
    values: npt.NDArray[np.int16] = (
        digits[ends].astype(np.int16) + 10 * tens * digits[ends - 1] + 100 * hundreds * digits[ends - 2]
    )
    if (hundreds & is_digit[ends - 3]).any() or values.max() > 255:
        raise ValueError("pixels that are not whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _label(text: str, label: str, line: int) -> int:
    text = text.strip()
    if len(text) != 1 or text not in "0123456":
        raise _bad_row(label, line, f"emotion {text[:20]!r} is none of 0 to {len(CLASSES) - 1}")
    return int(text)


def _usage(text: str, rows: _Rows, label: str, line: int) -> Split:
    found = rows.usages.get(text.lower())
    if found is None:
        found = split_code(text)
        if found is None:
            raise DataError(
                f"{label}, line {line}: Usage {shown(text)[:20]!r} is none of Training, PublicTest, PrivateTest",
                hint=f"other words are understood too: {UNDERSTOOD_SPLITS}",
            )
        rows.usages[text.lower()] = found
    return found


def _bad_row(label: str, line: int, what: str) -> DataError:
    return DataError(f"{label}, line {line}: {what}", hint="the file is damaged or truncated: download it again")
