"""What names mean as classes and as splits, and what is refused."""

from pathlib import PurePosixPath

import pytest

from fer_sweep.data.dataset import Split
from fer_sweep.data.names import (
    class_code,
    class_notes,
    outside_class,
    path_split,
    split_code,
    splits_by_name,
    unknown_class,
    unnumbered,
)
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

TRAIN, VAL, TEST = Split


@pytest.mark.parametrize(
    ("meant", "names"),
    [
        ("angry", ["angry", "Anger", "ANGRY", " angry ", "angry_face", "AngryFaces", "0_angry", "angery"]),
        ("disgust", ["disgust", "Disgusted", "digust", "disgust-images"]),
        ("fear", ["fear", "Fearful", "afraid", "scared", "fears", "fearfull"]),
        ("happy", ["happy", "Happiness", "joy", "Happy face", "happyFace", "happyness", "3 - happy"]),
        ("sad", ["sad", "Sadness", "sadnes", "sad.faces"]),
        ("surprise", ["surprise", "Surprised", "suprise", "SUPRISED", "surprize", "surprises"]),
        ("neutral", ["neutral", "Neutrality", "nuetral", "neutral_expression"]),
    ],
)
def test_class_is_known_by_each_of_its_names(meant: str, names: list[str]) -> None:
    assert {name: class_code(name) for name in names} == dict.fromkeys(names, CLASSES.index(meant))


@pytest.mark.parametrize(
    "name",
    ["", "3", "face", "hapy", "unhappy", "happy surprise", "not happy", "contempt", "poker face", "s", "anger x"],
)
def test_other_names_mean_no_class(name: str) -> None:
    assert class_code(name) is None


def test_classes_that_fer2013_lacks_are_told_from_unknown_names() -> None:
    names = ["Contempt", "contempt_faces", "NF", "unknown", "boredom"]
    assert [outside_class(name) for name in names] == ["contempt", "contempt", "nf", "unknown", None]


def test_only_names_that_are_no_plain_form_are_noted() -> None:
    assert class_notes(["angry", "Happiness", "SAD", "fearful"]) == ()
    (note,) = class_notes(["Happy face", "suprise", "sad"])
    assert note == "class names were read as follows: 'Happy face' as happy, 'suprise' as surprise"


def test_unknown_class_has_a_hint() -> None:
    assert unknown_class("x", "surrprise").hint == "did you mean surprise?"
    assert "angry, disgust, fear, happy, sad, surprise, neutral" in str(unknown_class("x", "boredom").hint)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (TRAIN, ["train", "Training", "TRAIN", "FER2013Train", "fer2013_train", "train_set", "trainset", "fertrain"]),
        (TRAIN, ["training-data", "TrainImages", "my train images", "train_aug", "train2"]),
        (VAL, ["val", "valid", "Validation", "dev", "FER2013Valid", "val_set", "valset", "validation_data"]),
        (VAL, ["PublicTest", "public_test", "Public Test", "FER2013-public-test", "PUBLICTEST", "test_public"]),
        (TEST, ["test", "Testing", "FER2013Test", "test_set", "testset", "TestImages", "test-faces"]),
        (TEST, ["PrivateTest", "private_test", "Private Test", "privatetest"]),
        (
            None,
            ["", "holdout", "set1", "train_val", "TrainTest", "public_private_test", "contest", "invalid", "latest"],
        ),
        (None, ["eval", "pretraining", "public", "happy", "tested"]),
    ],
)
def test_split_is_known_by_one_part_of_its_name(split: Split | None, names: list[str]) -> None:
    assert {name: split_code(name) for name in names} == dict.fromkeys(names, split)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train/person1", TRAIN),
        ("train/validation", VAL),
        ("test/public", VAL),
        ("test/private", TEST),
        ("fer2013_train_test/images", None),
        ("fer2013_train_test/test", TEST),
    ],
)
def test_split_of_a_path_is_that_of_its_nearest_folders(path: str, split: Split | None) -> None:
    found = path_split(PurePosixPath(path))
    assert (found and found[0]) == split


def test_splits_of_folders_beside_each_other_are_noted_where_they_are_no_plain_words() -> None:
    places = [PurePosixPath(name) for name in ("Train", "val_set", "x/test")]
    splits, notes = splits_by_name("faces", places)
    assert splits == dict(zip(places, Split, strict=True))
    assert notes == ("splits were read from names: 'val_set' as val",)


@pytest.mark.parametrize("names", [["train", "holdout"], ["train", "train_val"], ["a", "b"], [".", "train"]])
def test_folder_that_names_no_split_is_refused_beside_others(names: list[str]) -> None:
    with pytest.raises(DataError, match="no known split") as caught:
        splits_by_name("faces", map(PurePosixPath, names))
    assert repr(names[-1]) in str(caught.value) or "the top folder" in str(caught.value)
    assert "public_test" in str(caught.value.hint)


def test_folder_that_stands_alone_and_names_no_split_is_training_images() -> None:
    splits, notes = splits_by_name("faces", [PurePosixPath()] * 2)
    assert splits == {PurePosixPath(): TRAIN}
    assert notes == ("no folder or file names a split: all are training images",)


def test_parts_of_one_file_have_one_name() -> None:
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002-0b3f.parquet", "train_3.tar", "train/0001.tar"]
    assert {str(unnumbered(PurePosixPath(name))) for name in names} == {"train"}
