"""Sources whose classes, splits or image kinds are not the usual ones: read by a rule and noted, or refused by name."""

import numpy as np
import pytest

from fer_sweep.data.cache import Split, open_dataset, prepare
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

ALPHABETICAL = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


def labels_by_pixels(dataset):
    return {image.tobytes(): int(label) for image, label in zip(dataset.images, dataset.labels, strict=True)}


def right_labels(faces, rows=None):
    return {faces.images[i].tobytes(): int(faces.labels[i]) for i in (range(len(faces)) if rows is None else rows)}


def folders(faces, names, file="{}.png"):
    """Image folders with the given names in place of Training, PublicTest and PrivateTest."""
    return {
        f"{names[usage]}/{CLASSES[label]}/{file.format(i)}": faces.encoded(i)
        for i, (label, usage) in enumerate(zip(faces.labels, faces.usages, strict=True))
    }


def splits_of(info):
    return [info.split_total(split) for split in Split]


# Class names


@pytest.mark.parametrize(
    "names", [[*ALPHABETICAL[:-1], "suprise"], ["Angry", *ALPHABETICAL[1:3], "Happy face", *ALPHABETICAL[4:]]]
)
@pytest.mark.parametrize("as_dict", [False, True])
def test_parquet_labels_have_the_order_of_misspelt_names(faces, pack, tmp_path, names, as_dict):
    labels = [ALPHABETICAL.index(CLASSES[label]) for label in faces.labels]
    given = {str(number): name for number, name in enumerate(names)} if as_dict else names
    files = {"train.parquet": faces.parquet(range(98), "image", "label", labels, given)}
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)
    assert [note for note in info.notes if note.startswith("class names were read as follows:")]


@pytest.mark.parametrize("names", [["boredom", *ALPHABETICAL[1:]], ["angry", None], [1, 2]])
def test_parquet_with_an_unknown_class_name_is_refused(faces, pack, tmp_path, names):
    files = {"train.parquet": faces.parquet(range(98), "image", "label", faces.labels, names)}
    with pytest.raises(
        DataError, match=r"train\.parquet: the class names in its metadata: .* none of the seven"
    ) as caught:
        prepare(pack["folder"](tmp_path / "a", files))
    assert caught.value.hint


def test_parquet_names_must_be_in_all_files_or_in_none(faces, pack, tmp_path):
    files = {
        "train.parquet": faces.parquet(range(70), "image", "label", faces.labels, ALPHABETICAL),
        "val.parquet": faces.parquet(range(70, 98), "image", "label", faces.labels),
    }
    with pytest.raises(DataError, match=r"val\.parquet: this file or one before it does not name its classes"):
        prepare(pack["folder"](tmp_path / "a", files))


@pytest.mark.parametrize("names", [None, list("0123456")])
def test_parquet_without_class_names_says_which_order_was_taken(faces, pack, tmp_path, names):
    files = {"train.parquet": faces.parquet(range(98), "image", "label", faces.labels, names)}
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)
    assert f"the files do not name their classes: labels 0 to 6 were read as {', '.join(CLASSES)}" in info.notes


def test_parquet_rows_of_a_class_that_fer2013_lacks_are_left_out(faces, pack, tmp_path):
    labels = [7 if i < 3 else int(label) for i, label in enumerate(faces.labels)]
    files = {"train.parquet": faces.parquet(range(98), "image", "label", labels, [*CLASSES, "contempt"])}
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces, range(3, 98))
    assert "3 images of class contempt were left out" in info.notes


def test_parquet_labels_may_be_words(faces, pack, tmp_path):
    words = ["Happiness" if CLASSES[label] == "happy" else CLASSES[label] for label in faces.labels]
    info = prepare(pack["folder"](tmp_path / "a", {"train.parquet": faces.parquet(range(98), "image", "label", words)}))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)
    assert not [note for note in info.notes if "do not name their classes" in note]


def test_misspelt_class_folder_is_read_and_noted(faces, pack, tmp_path):
    files = {path.replace("/surprise/", "/suprise/"): content for path, content in faces.kaggle_files().items()}
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)
    assert "class names were read as follows: 'suprise' as surprise" in info.notes


def webdataset(faces, rows, labels, folder=""):
    files = {}
    for i in rows:
        files |= {f"{folder}{i}.png": faces.encoded(i), f"{folder}{i}.cls": str(labels[i]).encode()}
    return files


def test_webdataset_labels_have_the_order_of_its_classnames_file(faces, pack, tmp_path):
    order = [*reversed(CLASSES[:-1]), "nuetral"]
    labels = [order.index(CLASSES[label]) if label < 6 else 6 for label in faces.labels]
    shard = pack["tar"](tmp_path / "s.tar", webdataset(faces, range(98), labels)).read_bytes()
    files = {"classnames.txt": "\n".join(order).encode(), "train/0.tar": shard}
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)
    assert "class names were read as follows: 'nuetral' as neutral" in info.notes
    files["classnames.txt"] = b"boredom\nangry\n"
    with pytest.raises(DataError, match=r"classnames\.txt: 'boredom' is none of the seven classes"):
        prepare(pack["folder"](tmp_path / "b", files))


def test_webdataset_without_a_classnames_file_says_which_order_was_taken(faces, pack, tmp_path):
    labels = [ALPHABETICAL.index(CLASSES[label]) for label in faces.labels]
    files = webdataset(faces, range(98), labels) | {"99.cls": b"0", "99.npy": b"?"}
    info = prepare(pack["tar"](tmp_path / "train.tar", files))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)
    assert f"there is no classnames.txt: labels 0 to 6 were read as {', '.join(ALPHABETICAL)}" in info.notes
    assert "1 samples with no image of a kind that is read were left out" in info.notes


# Splits


@pytest.mark.parametrize(
    "names",
    [
        ("FER2013Train", "FER2013Valid", "FER2013Test"),
        ("training", "public_test", "private_test"),
        ("train_set", "val_set", "test_set"),
        ("Train Images/a", "Validation Images/a", "Test Images/b"),
    ],
)
def test_split_folders_are_known_by_a_part_of_their_names(faces, pack, tmp_path, names):
    info = prepare(pack["folder"](tmp_path / "a", folders(faces, names)))
    assert splits_of(info) == [70, 14, 14]
    assert [note for note in info.notes if note.startswith("splits were read from names:")]


@pytest.mark.parametrize(
    "names", [("train", "holdout", "test"), ("a", "b", "c"), ("train", "train_val", "test"), (".", "val", "test")]
)
def test_folder_that_names_no_split_is_not_pooled_into_training(faces, pack, tmp_path, names):
    with pytest.raises(DataError, match=r"^a: .* no known split") as caught:
        prepare(pack["folder"](tmp_path / "a", folders(faces, names)))
    assert "name each for its split" in str(caught.value.hint)


def test_folders_need_no_split_where_file_names_give_the_official_one(faces, pack, tmp_path):
    files = {}
    for number, (path, content) in enumerate(faces.kaggle_files().items()):
        files[f"part{number % 2}/{path.partition('/')[2]}"] = content
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert info.official_split and splits_of(info) == [70, 14, 14]


@pytest.mark.parametrize(
    "names", [("train.csv", "fer_val.csv", "test_set.csv"), ("train/a.csv", "val/a.csv", "test/a.csv")]
)
def test_csv_files_beside_each_other_are_known_by_their_names(faces, pack, tmp_path, names):
    files = {
        name: faces.csv("emotion,pixels", np.flatnonzero(faces.usages == usage)).encode()
        for usage, name in enumerate(names)
    }
    assert splits_of(prepare(pack["folder"](tmp_path / "a", files))) == [70, 14, 14]
    files["holdout.csv"] = files.pop(names[2])
    with pytest.raises(DataError, match=r"'holdout\.csv' names no known split"):
        prepare(pack["folder"](tmp_path / "b", files))


def test_csv_files_with_usage_are_joined_unless_they_hold_the_same_split(faces, pack, tmp_path):
    parts = {0: "a.csv", 1: "b.csv", 2: "c.csv"}
    files = {name: faces.csv(rows=np.flatnonzero(faces.usages == usage)).encode() for usage, name in parts.items()}
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert info.official_split and splits_of(info) == [70, 14, 14]
    files["b.csv"] = files["a.csv"]
    with pytest.raises(DataError, match=r"a\.csv, b\.csv have a Usage column each, and train is in more than one"):
        prepare(pack["folder"](tmp_path / "b", files))


def test_other_words_in_a_usage_column_are_read_and_noted(faces, tmp_path):
    text = (
        faces.csv().replace(",Training", ",Train").replace(",PublicTest", ",Val").replace(",PrivateTest", ",Test_Set")
    )
    (tmp_path / "a.csv").write_text(text)
    info = prepare(tmp_path / "a.csv")
    assert splits_of(info) == [70, 14, 14]
    assert not info.official_split
    assert "splits were read from names: 'test_set' as test" in info.notes


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_tables_and_shards_are_known_by_a_part_of_their_names(faces, pack, tmp_path, kind):
    files = {}
    for usage, name in enumerate(["fer2013train-00000-of-00001", "fer-public_test-0", "fer-private_test-0"]):
        rows = np.flatnonzero(faces.usages == usage).tolist()
        if kind == "parquet":
            content = faces.parquet(rows, "image", "label", faces.labels)
        else:
            content = pack["tar"](tmp_path / "s.tar", webdataset(faces, rows, faces.labels)).read_bytes()
        files[f"{name}.{kind}"] = content
    assert splits_of(prepare(pack["folder"](tmp_path / "a", files))) == [70, 14, 14]
    files[f"more.{kind}"] = content
    with pytest.raises(DataError, match="'more' names no known split"):
        prepare(pack["folder"](tmp_path / "b", files))


def test_folders_within_a_shard_name_splits_too(faces, pack, tmp_path):
    names = ["train/", "val/", "test/"]
    files = {}
    for usage, folder in enumerate(names):
        files |= webdataset(faces, np.flatnonzero(faces.usages == usage), faces.labels, folder)
    assert splits_of(prepare(pack["tar"](tmp_path / "a.tar", files))) == [70, 14, 14]


# Kinds of images


@pytest.mark.parametrize("ending", ["tiff", "TIF", "gif", "bmp", "webp"])
def test_class_in_another_kind_of_image_is_read(faces, pack, tmp_path, ending):
    kind = {"tif": "TIFF"}.get(ending.lower(), ending.upper())
    options = {"lossless": True} if kind == "WEBP" else {}
    files = faces.kaggle_files()
    for path in [path for path in files if "/angry/" in path]:
        number = int(path.rpartition("_")[2].removesuffix(".png")) - 1000
        del files[path]
        files[path.replace("png", ending)] = faces.encode(faces.images[number], kind, **options)
    prepare(pack["folder"](tmp_path / "a", files))
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)


def test_files_that_are_not_read_are_counted_by_kind_and_an_empty_class_is_noted(faces, pack, tmp_path):
    files = {path.replace("png", "heic") if "/angry/" in path else path: c for path, c in faces.kaggle_files().items()}
    info = prepare(pack["folder"](tmp_path / "a", files | {"train/happy/LICENSE": b"free", "README.md": b"hello"}))
    assert info.total == 84
    assert "15 files of kinds that are not read were left out: .heic 14, no ending 1" in info.notes
    assert "there are no images of angry" in info.notes


def test_class_that_one_split_lacks_is_noted(faces, pack, tmp_path):
    files = {path: content for path, content in faces.kaggle_files().items() if "/sad/PublicTest" not in path}
    assert "val has no images of sad" in prepare(pack["folder"](tmp_path / "a", files)).notes


def test_deep_images_and_those_of_several_frames_are_noted(faces, pack, tmp_path):
    files = faces.kaggle_files()
    first, second = [path for path in files if "/happy/" in path][:2]
    files[first] = faces.encode(faces.images[3].astype(np.uint16) * 257)
    files[second] = faces.encode(faces.images[10], "PNG", save_all=True, append_images=[faces.picture(11)])
    info = prepare(pack["folder"](tmp_path / "a", files))
    assert "1 images had more than 8 bits a pixel and were scaled to 8 from the full range of their kind" in info.notes
    assert "1 files hold several images: the first of each was taken" in info.notes
    assert labels_by_pixels(open_dataset("fer2013")) == right_labels(faces)
