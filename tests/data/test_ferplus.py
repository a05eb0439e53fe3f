"""FER+ labels: joined by row position, majority of the votes, the rest left out and counted."""

import numpy as np
import pytest

from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.data.sources.csv_rows import VOTES
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES
from tests.support.faces import USAGES, write_zip

NAMES = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
HEADER = f"Usage,Image name,{','.join(VOTES)}"


def row(usage, **votes):
    return ",".join([USAGES[usage], "name.png", *(str(votes.get(name, 0)) for name in VOTES)])


@pytest.fixture
def rows(faces):
    """Ten votes a row for FER2013's own label."""
    return [row(usage, **{NAMES[label]: 10}) for label, usage in zip(faces.labels, faces.usages, strict=True)]


@pytest.fixture
def prepare_with(faces, tmp_path):
    """Prepares the faces with lines of FER+'s file."""
    (tmp_path / "fer2013.csv").write_text(faces.csv())

    def prepared(lines, source="fer2013.csv"):
        (tmp_path / "labels.csv").write_text("\n".join(lines))
        return prepare(tmp_path / source, ferplus=tmp_path / "labels.csv")

    return prepared


def test_majority_labels_replace_the_csvs_row_by_row(faces, rows, prepare_with):
    rows[:6] = [
        row(0, happiness=8, neutral=2),  # another label
        row(0, contempt=7, anger=3),
        row(0, NF=10),
        row(0, sadness=5, neutral=5),  # nobody has more than half
        row(0, fear=5, surprise=3, sadness=1, anger=1),  # single votes do not count: 5 of 8
        row(0, unknown=9, fear=1),
    ]
    info = prepare_with([HEADER, *rows])
    dataset = open_dataset("fer2013")
    kept = np.array([0, 4, *range(6, 98)])
    labels = faces.labels.copy()
    labels[0], labels[4] = CLASSES.index("happy"), CLASSES.index("fear")
    assert (dataset.images == faces.images[kept]).all()
    assert (dataset.labels == labels[kept]).all()
    assert (dataset.splits == faces.usages[kept]).all()
    assert "left out by FER+'s votes: 1 contempt, 2 unknown, 1 NF (NF: not a face)" in info.notes
    assert any("2 of 94 differ" in note for note in info.notes)


def test_labels_that_do_not_belong_to_the_rows_are_refused(faces, rows, prepare_with, tmp_path):
    for lines, message in (
        ([HEADER, *rows[:-1]], "97 rows of votes for 98 images"),
        ([HEADER, *reversed(rows)], "line 2: Usage 'PrivateTest' is not that of the image"),
        (["<!DOCTYPE html>", *rows], "it is an HTML page"),
        (["emotion,pixels,Usage", *rows], "not FER.'s labels: no CSV with columns"),
        ([HEADER, *rows[:3], "Training,x.png,a,b", *rows[4:]], "line 5: ten numbers"),
    ):
        with pytest.raises(DataError, match=message):
            prepare_with(lines)
    write_zip(tmp_path / "none.zip", {})
    with pytest.raises(DataError, match="no CSV with columns"):
        prepare(tmp_path / "fer2013.csv", ferplus=tmp_path / "none.zip")
    write_zip(tmp_path / "a.zip", faces.files())
    with pytest.raises(DataError, match="belong to the rows of FER2013's CSV"):
        prepare_with([HEADER, *rows], "a.zip")
