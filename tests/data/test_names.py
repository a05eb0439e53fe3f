"""What names mean as classes and as splits, and what is refused."""

from pathlib import PurePosixPath

import pytest

from fer_sweep.data.dataset import Split
from fer_sweep.data.names import class_code, path_split, split_code, splits_by_name
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

TRAIN, VAL, TEST = Split
CLASS_NAMES = {
    "angry": ["angry", "Anger", "ANGRY", " angry ", "angry_face", "AngryFaces", "0_angry", "angery"],
    "disgust": ["disgust", "Disgusted", "digust", "disgust-images"],
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


def test_split_of_a_path_is_that_of_its_nearest_folders():
    meant = {"data/train/person1": TRAIN, "train/validation": VAL, "test/public": VAL, "test/private": TEST}
    meant |= {"fer2013_train_test/images": None, "fer2013_train_test/test": TEST}
    found = {path: path_split(PurePosixPath(path)) for path in meant}
    assert {path: read and read[0] for path, read in found.items()} == meant


@pytest.mark.parametrize("names", [["train", "holdout"], ["train", "train_val"], ["a", "b"], [".", "train"]])
def test_folder_that_names_no_split_is_refused_beside_others(names):
    with pytest.raises(DataError, match="no known split") as caught:
        splits_by_name("faces", map(PurePosixPath, names))
    assert repr(names[-1]) in str(caught.value) or "the top folder" in str(caught.value)
    assert "public_test" in caught.value.hint


def test_folder_that_stands_alone_and_names_no_split_is_training_images():
    splits, notes = splits_by_name("faces", [PurePosixPath()] * 2)
    assert splits == {PurePosixPath(): TRAIN}
    assert notes == ("no folder or file names a split: all are training images",)
