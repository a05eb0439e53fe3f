"""FER+ labels: joined by row position, majority of the votes, the rest left out and counted."""

import numpy as np
import pytest

from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

COLUMNS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
HEADER = "Usage,Image name," + ",".join(COLUMNS)
OWN_NAMES = dict(zip(CLASSES, ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"], strict=True))
USAGES = ("Training", "PublicTest", "PrivateTest")


def votes(**counts):
    return ",".join(str(counts.get(name, 0)) for name in COLUMNS)


def ferplus_csv(faces, special):
    """Ten votes a row for FER2013's own label, but for the rows in ``special``; image names are off by a few rows."""
    lines = [HEADER]
    for index, (label, usage) in enumerate(zip(faces.labels, faces.usages, strict=True)):
        row = special.get(index, votes(**{OWN_NAMES[CLASSES[label]]: 10}))
        name = "" if row == votes(NF=10) else f"fer{index + 3:07d}.png"
        lines.append(f"{USAGES[usage]},{name},{row}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def sources(faces, tmp_path):
    csv_path, labels_path = tmp_path / "fer2013.csv", tmp_path / "fer2013new.csv"
    csv_path.write_text(faces.csv())

    def write(special):
        labels_path.write_text(ferplus_csv(faces, special))
        return csv_path, labels_path

    return write


def test_majority_labels_replace_the_csvs_row_by_row(faces, sources):
    special = {
        0: votes(happiness=8, neutral=2),  # another label
        1: votes(contempt=7, anger=3),
        2: votes(NF=10),
        3: votes(sadness=5, neutral=5),  # nobody has more than half
        4: votes(fear=5, surprise=3, sadness=1, anger=1),  # single votes do not count: 5 of 8
        5: votes(unknown=9, fear=1),
    }
    csv_path, labels_path = sources(special)
    info = prepare(csv_path, "ferplus", ferplus=labels_path)
    dataset = open_dataset("ferplus")
    kept = np.array([i for i in range(len(faces)) if i not in (1, 2, 3, 5)])
    wanted = faces.labels[kept].copy()
    wanted[0], wanted[kept.tolist().index(4)] = CLASSES.index("happy"), CLASSES.index("fear")
    assert (dataset.images == faces.images[kept]).all()
    assert (dataset.labels == wanted).all()
    assert (dataset.splits == faces.usages[kept]).all()
    assert "left out by FER+'s votes: 1 contempt, 2 unknown, 1 NF (NF: not a face)" in info.notes
    assert any("2 of 94 differ" in note for note in info.notes)


def test_a_source_without_the_csvs_rows_is_refused(faces, pack, sources, tmp_path):
    _, labels_path = sources({})
    with pytest.raises(DataError, match="belong to the rows of FER2013's CSV"):
        prepare(pack["zip"](tmp_path / "a.zip", faces.kaggle_files()), ferplus=labels_path)


def test_another_number_of_rows_is_refused(faces, sources, tmp_path):
    csv_path, labels_path = sources({})
    labels_path.write_text("\n".join(labels_path.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match="97 rows of votes for 98 images"):
        prepare(csv_path, ferplus=labels_path)


def test_rows_in_another_order_are_refused(faces, sources):
    csv_path, labels_path = sources({})
    header, *rows = labels_path.read_text().splitlines()
    labels_path.write_text("\n".join([header, *reversed(rows)]))
    with pytest.raises(DataError, match="line 2: Usage 'PrivateTest' is not that of the image"):
        prepare(csv_path, ferplus=labels_path)


def test_a_file_of_another_kind_and_bad_votes_are_refused(faces, sources):
    csv_path, labels_path = sources({})
    with pytest.raises(DataError, match="no column neutral"):
        prepare(csv_path, ferplus=csv_path)
    labels_path.write_text(ferplus_csv(faces, {3: "a,b"}))
    with pytest.raises(DataError, match="line 5: ten numbers"):
        prepare(csv_path, ferplus=labels_path)
