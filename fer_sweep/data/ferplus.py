"""FER+ labels: ten people's votes a face, `fer2013new.csv`, joined onto the rows of FER2013's CSV.

Rows are joined by position, as its authors say; the names in its `Image name` column do not number the rows.

Source: Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", ICMI 2016 (arXiv 1608.01041); the majority rule is that of their published code.
"""

import csv
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_sweep.data.layout import RawFaces
from fer_sweep.data.names import OFFICIAL_NAMES, OUTSIDE, class_code
from fer_sweep.data.tree import open_tree, readable
from fer_sweep.errors import DataError

VOTES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
"""The columns of votes; NF is "not a face"."""


_LARGEST = 16 << 20
"""Bytes; the file its authors publish has under 2 MB."""


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


def relabel(faces: RawFaces, path: Path) -> RawFaces:
    """Replace FER2013's labels by FER+'s majority, and leave out images whose majority is none of the seven.

    Raises:
        DataError: The faces are not in the CSV's order, or the file does not fit them row by row.
    """
    if not faces.keeps_csv_rows:
        raise DataError(
            "FER+ labels belong to the rows of FER2013's CSV, and this source does not keep them",
            hint="prepare fer2013.csv or icml_face_data.csv with --ferplus",
        )
    rows = _read(path)
    if len(rows) != len(faces.images):
        raise DataError(
            f"{path.name}: {len(rows):,} rows of votes for {len(faces.images):,} images",
            hint="rows are joined by position, so both files must be complete",
        )
    labels = np.zeros(len(rows), dtype=np.int64)
    keep = np.zeros(len(rows), dtype=bool)
    left_out: Counter[str] = Counter()
    for index, (usage, votes) in enumerate(rows):
        if OFFICIAL_NAMES.get(usage.lower()) != faces.splits[index]:
            raise DataError(
                f"{path.name}, line {index + 2}: Usage {usage[:20]!r} is not that of the image in the same row",
                hint="the two files are not in the same order: take both as they were published",
            )
        winner = majority(votes)
        code = class_code(winner)
        if code is None:
            left_out[winner] += 1
        else:
            labels[index], keep[index] = code, True
    changed = int((keep & (labels != faces.labels)).sum())
    counts = ", ".join(f"{left_out[name]:,} {name}" for name in VOTES if name.lower() in OUTSIDE and left_out[name])
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


def _read(path: Path) -> list[tuple[str, dict[str, int]]]:
    """Usage and votes of every row, in order."""
    with open_tree(path) as tree:
        member = next((m for m in tree.members if m.path.suffix.lower() == ".csv"), tree.members[0])
        with readable(tree.label(member)):
            text = io.StringIO(tree.read(member, limit=_LARGEST).decode("utf-8-sig"))
            names = [name.strip().lower() for name in next(csv.reader(text), [])]
            rows = list(csv.reader(text))
    missing = [name for name in ("Usage", *VOTES) if name.lower() not in names]
    if missing:
        raise DataError(
            f"{path.name}: not FER+'s labels: no column {', '.join(missing)}",
            hint="give fer2013new.csv as its authors publish it",
        )
    columns = {name: names.index(name.lower()) for name in ("Usage", *VOTES)}
    found = []
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        try:
            votes = {name: int(row[columns[name]]) for name in VOTES}
            found.append((row[columns["Usage"]].strip(), votes))
        except (IndexError, ValueError):
            raise DataError(
                f"{path.name}, line {line}: ten numbers of votes expected", hint="download it again"
            ) from None
    return found
