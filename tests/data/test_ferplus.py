"""FER+ labels: joined by row position, majority of the votes, the rest left out and counted."""

import numpy as np
import pytest

from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.data.ferplus import VOTES
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES
from tests.support.faces import USAGES, write_zip

NAMES = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]


def votes(**counts):
    return ",".join(str(counts.get(name, 0)) for name in VOTES)


def ferplus_csv(faces, special):
    """Ten votes a row for FER2013's own label, but for the rows in ``special``; image names are off by a few rows."""
    lines = [f"Usage,Image name,{','.join(VOTES)}"]
    for index, (label, usage) in enumerate(zip(faces.labels, faces.usages, strict=True)):
        row = special.get(index, votes(**{NAMES[label]: 10}))
        name = "" if row == votes(NF=10) else f"fer{index + 3:07d}.png"
        lines.append(f"{USAGES[usage]},{name},{row}")
    return lines


@pytest.fixture
def prepare_with(faces, tmp_path):
    """Prepares the faces with lines of FER+'s file."""
    (tmp_path / "fer2013.csv").write_text(faces.csv())

    def prepared(lines, source=tmp_path / "fer2013.csv"):
        (tmp_path / "labels.csv").write_text("\n".join(lines))
        return prepare(source, ferplus=tmp_path / "labels.csv")

    return prepared


def test_majority_labels_replace_the_csvs_row_by_row(faces, prepare_with):
    special = {
        0: votes(happiness=8, neutral=2),  # another label
        1: votes(contempt=7, anger=3),
        2: votes(NF=10),
        3: votes(sadness=5, neutral=5),  # nobody has more than half
        4: votes(fear=5, surprise=3, sadness=1, anger=1),  # single votes do not count: 5 of 8
        5: votes(unknown=9, fear=1),
    }
    info = prepare_with(ferplus_csv(faces, special))
    dataset = open_dataset("fer2013")
    kept = np.array([i for i in range(len(faces)) if i not in (1, 2, 3, 5)])
    labels = faces.labels.copy()
    labels[0], labels[4] = CLASSES.index("happy"), CLASSES.index("fear")
    assert (dataset.images == faces.images[kept]).all()
    assert (dataset.labels == labels[kept]).all()
    assert (dataset.splits == faces.usages[kept]).all()
    assert "left out by FER+'s votes: 1 contempt, 2 unknown, 1 NF (NF: not a face)" in info.notes
    assert any("2 of 94 differ" in note for note in info.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, *rows: [header, *rows[:-1]], "97 rows of votes for 98 images"),
        (lambda header, *rows: [header, *reversed(rows)], "line 2: Usage 'PrivateTest' is not that of the image"),
        (lambda header, *rows: ["emotion,pixels,Usage", *rows], "no column neutral"),
        (lambda header, *rows: [header, *rows[:3], "Training,x.png,a,b", *rows[4:]], "line 5: ten numbers"),
    ],
)
def test_labels_that_do_not_belong_to_the_rows_are_refused(change, message, faces, prepare_with, tmp_path):
    lines = ferplus_csv(faces, {})
    with pytest.raises(DataError, match=message):
        prepare_with(change(*lines))
    with pytest.raises(DataError, match="belong to the rows of FER2013's CSV"):
        prepare_with(lines, write_zip(tmp_path / "a.zip", faces.files()))
