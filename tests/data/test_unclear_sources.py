"""What names mean as classes and splits; unknown ones, and rows, are refused by name, and nothing is guessed."""

import re
from pathlib import PurePosixPath

import pytest

from fer_sweep.data.dataset import Split
from fer_sweep.data.names import (
    CLASS_FILLERS,
    CLASS_FORMS,
    OUTSIDE,
    SPLIT_WORDS,
    class_code,
    path_split,
    split_code,
)
from fer_sweep.records import CLASSES
from tests.data.conftest import ALPHABETICAL, csv_files, folders, refused, shards, tables
from tests.support.documentation import rows, section
from tests.support.faces import write_folder

TRAIN, VAL, TEST = Split
CLASS_NAMES = {
    "angry": ["angry", "Anger", "ANGRY", " angry ", "angry_face", "AngryFaces", "0_angry", "angery"],
    "disgust": ["disgust", "Disgusted", "digust", "disgust-images", "class_disgust"],
    "fear": ["fear", "Fearful", "afraid", "scared", "fears", "fearfull"],
    "happy": ["happy", "Happiness", "joy", "Happy face", "happyFace", "happyness", "3 - happy"],
    "sad": ["sad", "Sadness", "sadnes", "sad.faces"],
    "surprise": ["surprise", "Surprised", "suprise", "SUPRISED", "surprize", "surprises"],
    "neutral": ["neutral", "Neutrality", "nuetral", "neutral_expression"],
}
NO_CLASS = ["", "3", "face", "hapy", "unhappy", "happy surprise", "not happy", "contempt", "poker face", "s", "anger x"]
SPLIT_NAMES = [
    (TRAIN, ["train", "Training", "TRAIN", "FER2013Train", "fer2013_train", "train_set", "trainset", "fertrain"]),
    (TRAIN, ["training-data", "TrainImages", "my train images", "train_aug", "train2"]),
    (VAL, ["val", "valid", "Validation", "dev", "FER2013Valid", "val_set", "valset", "validation_data"]),
    (VAL, ["PublicTest", "public_test", "Public Test", "FER2013-public-test", "PUBLICTEST", "test_public"]),
    (TEST, ["test", "Testing", "FER2013Test", "test_set", "testset", "TestImages", "test-faces"]),
    (TEST, ["PrivateTest", "private_test", "Private Test", "privatetest"]),
    (None, ["", "holdout", "set1", "train_val", "TrainTest", "public_private_test", "contest", "invalid", "latest"]),
    (None, ["eval", "pretraining", "public", "happy", "tested"]),
]


def test_class_is_known_by_each_of_its_names_and_no_other():
    meant = {name: CLASSES.index(label) for label, names in CLASS_NAMES.items() for name in names}
    meant |= dict.fromkeys(NO_CLASS)
    assert {name: class_code(name) for name in meant} == meant


def test_split_is_known_by_one_part_of_its_name():
    meant = {name: split for split, names in SPLIT_NAMES for name in names}
    assert {name: split_code(name) for name in meant} == meant


def test_page_has_the_tables_of_names():
    assert {name: cell.split(", ") for name, cell in rows("class")} == {
        name: forms.split() for name, forms in CLASS_FORMS.items()
    }
    listed = {name: cell.split(", ") for name, cell in rows("split")}
    assert listed == {
        split.name.lower(): [word for word, meant in SPLIT_WORDS.items() if meant == split] for split in Split
    }
    text = section("Names of classes and splits").replace("\n", " ")
    (fillers, outside) = re.search(r"change nothing: (.*?)\. Nor .*Images of (.*?) are left out", text).groups()
    assert set(re.findall(r"`(\w+)`", fillers)) == CLASS_FILLERS and set(re.findall(r"`(\w+)`", outside)) == OUTSIDE
    for order in (CLASSES, ALPHABETICAL):
        assert ", ".join(f"{name} {number}" for number, name in enumerate(order)) in re.sub(r"\s+", " ", text)


def test_split_of_a_path_is_that_of_its_nearest_folders():
    meant = {"data/train/person1": TRAIN, "train/validation": VAL, "test/public": VAL, "test/private": TEST}
    meant |= {"fer2013_train_test/images": None, "fer2013_train_test/test": TEST}
    found = {path: path_split(PurePosixPath(path)) for path in meant}
    assert {path: read and read[0] for path, read in found.items()} == meant


def renumbered(first):
    """Image folders with numbers for classes."""
    return lambda f: {
        re.sub(rf"/({'|'.join(CLASSES)})/", lambda match: f"/{CLASSES.index(match[1]) + first}/", path): content
        for path, content in f.files().items()
    }


REFUSED = {
    "class folder": (
        lambda f: f.files() | {"train/hapy/a.png": f.encoded(0)}, r"train/hapy/a\.png.*'hapy'", r"did you mean happy\?"
    ),
    "numbered class folders": (
        renumbered(0), r"^a: class folders have numbers \('0', '1', .*nothing states what they mean", "0_angry"
    ),
    "class folders numbered in three digits": (
        lambda f: {path.replace("/", "/class00", 1): file for path, file in renumbered(1)(f).items()},
        r"^a: class folders have numbers \('class001', "
    ),
    "class folders with other numbers than stated": (
        lambda f: renumbered(1)(f) | {"classnames.txt": "\n".join(CLASSES).encode()},
        "^a: classnames.txt names the numbers 0 to 6, and the class folders are '1', '2'",
    ),
    "numbers beside names": (
        lambda f: f.files() | {"train/0/a.png": f.encoded(0)}, "'0' is none of the 7 classes", "RAF-DB"
    ),
    "class folders in another language": (
        lambda f: {"train/wut/a.png": f.encoded(0), "train/angst/a.png": f.encoded(0)},
        "^a: images lie in folders that name no class: 'angst', 'wut'", "the classes are angry",
    ),
    "classes above splits": (
        lambda f: {"angry/train/a.png": f.encoded(0)}, "below those of classes: 'angry/train'", "<split>/<class>"
    ),
    "class folders without images that are read": (
        lambda f: {"train/sad/a.heic": b"?", "train/sad/b.HEIC": b"?", "train/sad/c": b"\x89PNG"},
        r"no images of a kind that is read: \.heic 2, no ending 1", "convert images to PNG first",
    ),
    "class folders beside a shard": (
        lambda f: f.files() | shards()(f), "^a: several data sets lie side by side: .*WebDataset tars and class folders"
    ),
    "class folders beside a CSV": (
        lambda f: f.files() | csv_files("a.csv")(f), "side by side: CSV files with pixels and class folders"
    ),
    "split folder": (folders("train", "holdout", "test"), "^a: .*'holdout'.* no known split", "name each for"),
    "no split folder": (folders("a", "b", "b"), "^a: 'a', 'b' name no known split"),
    "faces beside a split": (folders(".", "train", "train"), "^a: the top folder names no known split"),
    "CSV without labels": (lambda f: {"test.csv": f.csv("pixels").encode()}, "no `emotion` column"),
    "CSV without rows": (lambda f: {"a.csv": b"emotion,pixels,Usage\n"}, "a header and no rows"),
    "split of a CSV": (
        csv_files("train.csv", "val.csv", "holdout.csv", columns="emotion,pixels"), "'holdout.csv' names no known split"
    ),
    "split twice in CSV files": (
        lambda f: csv_files("a.csv")(f) | {"b.csv": f.csv(rows=range(70)).encode()},
        r"a\.csv, b\.csv have a Usage column each, and train is in more than one",
    ),
    "split of a parquet": (tables(files=("train", "val", "more")), "'more' names no known split"),
    "split of a shard": (
        lambda f: {path.replace("test/0", "more"): content for path, content in shards()(f).items()},
        "'more' names no known split",
    ),
    "class of a shard": (
        lambda f: shards()(f) | {"classnames.txt": b"boredom\nangry\n"},
        r"classnames\.txt: 'boredom' is none of the 7 classes", "the classes are angry, disgust, fear",
    ),
    **{
        f"class of a parquet {names[:2]}": (
            tables(names=names, files=["train"]), r"train\.parquet: the class names in its metadata: .* none of the"
        )
        for names in (["boredom", *ALPHABETICAL[1:]], ["angry", None], [1, 2])
    },
    "one class twice in a parquet": (
        tables(names=["angry", "Anger", *CLASSES[2:]]), "'angry' and 'Anger', labels 0 and 1, both mean angry"
    ),
    "eight numbers in a parquet": (
        tables(lambda f: [7, *f.labels[1:].tolist()], files=["train"]), "row 0: label: '7' is none", "RAF-DB's 1 to 7"
    ),
    "class names in one parquet of two": (
        lambda f: tables(names=ALPHABETICAL, files=["train"])(f) | {"val.parquet": f.parquet(f.rows(1))},
        r"val\.parquet: this file and one before it have other columns, or only one of them names its classes",
    ),
    "several archives": (lambda f: dict.fromkeys(("a.zip", "b.zip"), b"PK\5\6" + bytes(18)), r"a\.zip, b\.zip"),
    "only test images": (folders("test", "test", "test"), "^a: no training images"),
    "too few to divide": (lambda f: {"train/sad/a.png": f.encoded(0)}, "too few"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unclear_source_is_refused(name, faces, tmp_path):
    files, message, *hint = REFUSED[name]
    refused(write_folder(tmp_path / "a", files(faces)), message, *hint)


@pytest.mark.parametrize("name", ["test", "FER2013Valid"])
def test_folder_of_one_split_is_known_by_its_own_name(name, faces, tmp_path):
    refused(write_folder(tmp_path / name, folders(".", ".", ".")(faces)), f"^{name}: its name says that all of it is")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7,{pixels},Training", "emotion: '7' is none of the 7 classes"),
        (",{pixels},Training", "emotion: '' is none of the 7 classes"),
        ("hapy,{pixels},Training", "emotion: 'hapy' is none of the 7 classes"),
        ("0,{pixels},Trainig", "Usage 'Trainig' is none"),
        ("0,1 2 3,Training", "3 pixels in place of 2304"),
        ("0,25{pixels},Training", "pixels that are not whole numbers from 0 to 255"),
        ("0,100{pixels},Training", "pixels that are not whole numbers from 0 to 255"),
        ("0,-{pixels},Training", "pixels that are not whole numbers"),
        ("0", "only 1 columns"),
    ],
)
def test_bad_csv_row_is_named_by_its_line(row, message, faces, tmp_path):
    (tmp_path / "a.csv").write_text(faces.csv(rows=range(3)) + row.format(pixels=" ".join(["7"] * 2304)) + "\n")
    refused(tmp_path / "a.csv", f"line 5: {message}")
