"""Every layout, in its real format and small: the same faces, labels and splits come out of each."""

import gzip
import sys

import numpy as np
import pytest

from fer_sweep.data.cache import Split, open_dataset, prepare
from fer_sweep.errors import DataError
from fer_sweep.records import CLASSES

ALPHABETICAL = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


def by_pixels(dataset, split):
    """The labels of one split by the bytes of their image, whatever the order."""
    return {dataset.images[i].tobytes(): int(dataset.labels[i]) for i in dataset.indices(split)}


def assert_official(dataset, faces):
    assert dataset.info.official_split
    for split in Split:
        chosen = np.flatnonzero(faces.usages == split)
        assert by_pixels(dataset, split) == {faces.images[i].tobytes(): int(faces.labels[i]) for i in chosen}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_kaggle_folders_recover_the_official_split_from_file_names(faces, pack, tmp_path, kind):
    source = pack[kind](tmp_path / f"archive.{kind}", faces.kaggle_files())
    info = prepare(source)
    assert info.name == "fer2013"
    assert info.source == source.name
    assert_official(open_dataset("fer2013"), faces)


def test_a_folder_and_its_zip_have_one_fingerprint(faces, pack, tmp_path):
    files = faces.kaggle_files()
    first = prepare(pack["folder"](tmp_path / "folder", files), "one")
    second = prepare(pack["zip"](tmp_path / "two.zip", dict(reversed(files.items()))), "two")
    assert first.fingerprint == second.fingerprint


def test_the_class_of_an_image_is_its_folders_name_and_never_its_position(faces, pack, tmp_path):
    # Alphabetical numbering would make neutral 4, sad 5 and surprise 6.
    prepare(pack["folder"](tmp_path / "faces", faces.kaggle_files()))
    dataset = open_dataset("fer2013")
    for name in ("neutral", "sad", "surprise"):
        one = next(i for i in range(len(faces)) if CLASSES[faces.labels[i]] == name)
        place = next(i for i in range(len(dataset.labels)) if (dataset.images[i] == faces.images[one]).all())
        assert CLASSES[dataset.labels[place]] == name


def test_class_folders_in_any_case_and_by_synonyms(faces, pack, tmp_path):
    other = dict(
        zip(CLASSES, ["Anger", "DISGUSTED", "fearful", "Happiness", "Sadness", "Surprised", "Neutral"], strict=True)
    )
    files = {}
    for path, content in faces.kaggle_files().items():
        split, folder, file = path.split("/")
        files[f"data/{split.title()}/{other[folder]}/{file}"] = content
    prepare(pack["zip"](tmp_path / "faces.zip", files))
    assert_official(open_dataset("fer2013"), faces)


def test_an_unknown_class_folder_is_named_with_the_nearest_class(faces, pack, tmp_path):
    files = faces.kaggle_files() | {"train/hapy/a.png": faces.encoded(0)}
    with pytest.raises(DataError, match=r"train/hapy/a\.png.*'hapy'") as caught:
        prepare(pack["zip"](tmp_path / "faces.zip", files))
    assert caught.value.hint == "did you mean happy?"


def test_pictures_beside_the_data_are_left_out_and_counted(faces, pack, tmp_path):
    files = faces.kaggle_files() | {"docs/figure.png": faces.encoded(0), "cover.jpg": b"no image even"}
    info = prepare(pack["zip"](tmp_path / "faces.zip", files))
    assert info.total == len(faces)
    assert "2 images that lie in no class folder were left out" in info.notes


def test_folders_between_split_and_class_do_not_hide_the_split(faces, pack, tmp_path):
    files = {
        f"{'train' if i < 70 else 'validation'}/person{i % 3}/{CLASSES[label]}/{i}.png": faces.encoded(i)
        for i, label in enumerate(faces.labels)
    }
    info = prepare(pack["folder"](tmp_path / "faces", files))
    assert [info.split_total(split) for split in Split] == [70, 28, 0]


def test_contempt_is_left_out_and_counted(faces, pack, tmp_path):
    files = faces.kaggle_files() | {f"train/contempt/Training_{i}.png": faces.encoded(i) for i in range(3)}
    info = prepare(pack["zip"](tmp_path / "faces.zip", files))
    assert info.total == len(faces)
    assert "3 images of class contempt were left out" in info.notes


def test_train_and_validation_folders_are_taken_as_they_are_and_said_not_to_be_official(faces, pack, tmp_path):
    files = {
        f"images/{'train' if i < 70 else 'validation'}/{CLASSES[label]}/{i}.jpg": faces.encoded(i)
        for i, label in enumerate(faces.labels)
    }
    info = prepare(pack["folder"](tmp_path / "faces", files))
    assert not info.official_split
    assert [info.split_total(split) for split in Split] == [70, 28, 0]
    assert any("not FER2013's official" in note for note in info.notes)
    assert any("no test split" in note for note in info.notes)


def test_a_new_division_of_officially_named_files_is_kept(faces, pack, tmp_path):
    files = {}
    for number, (path, content) in enumerate(faces.kaggle_files().items()):
        _, folder, file = path.split("/")
        files[f"{'val' if number % 5 == 0 else 'train'}/{folder}/{file}"] = content
    info = prepare(pack["folder"](tmp_path / "faces", files))
    assert not info.official_split
    assert info.split_total(Split.VAL) == 20
    assert any("another split than their names say" in note for note in info.notes)


def test_an_archive_that_holds_everything_twice_is_read_once(faces, pack, tmp_path):
    files = faces.kaggle_files()
    deeper = {f"images/{path}": content for path, content in files.items()}
    info = prepare(pack["zip"](tmp_path / "faces.zip", files | deeper))
    assert info.total == len(faces)
    assert any("98 images in deeper folders" in note for note in info.notes)


def test_images_of_other_kinds_are_converted_and_counted(faces, pack, tmp_path):
    files = faces.kaggle_files()
    name = next(iter(files))
    large = np.repeat(np.repeat(faces.images[0], 3, axis=0), 3, axis=1)
    files[name] = faces.encode(np.stack([large] * 3, axis=2))
    info = prepare(pack["zip"](tmp_path / "faces.zip", files))
    assert "1 images were not 48x48 grey and were converted to it" in info.notes
    dataset = open_dataset("fer2013")
    difference = np.abs(dataset.images.astype(int) - faces.images[0]).mean(axis=(1, 2)).min()
    assert difference < 12  # a third of the size again, smoothed a little


@pytest.mark.parametrize("columns", ["emotion,pixels,Usage", "emotion, Usage, pixels"])
def test_csv_with_usage_whatever_its_columns_order_and_spaces(faces, tmp_path, columns):
    path = tmp_path / "data.csv"
    path.write_text(faces.csv(columns))
    prepare(path)
    dataset = open_dataset("fer2013")
    assert_official(dataset, faces)
    assert (dataset.images == faces.images).all()  # rows keep their order
    assert (dataset.labels == faces.labels).all()


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_a_csv_in_an_archive(faces, pack, tmp_path, kind):
    files = {"fer2013/README": b"see the paper", "fer2013/fer2013.csv": faces.csv().encode()}
    prepare(pack[kind](tmp_path / f"fer2013.{kind}", files))
    assert_official(open_dataset("fer2013"), faces)


def test_a_gzipped_csv(faces, tmp_path):
    (tmp_path / "fer2013.csv.gz").write_bytes(gzip.compress(faces.csv().encode()))
    prepare(tmp_path / "fer2013.csv.gz")
    assert_official(open_dataset("fer2013"), faces)


def test_a_windows_csv_with_a_byte_order_mark_and_quotes(faces, tmp_path):
    path = tmp_path / "data.csv"
    rows = faces.csv().splitlines()
    quoted = ["emotion,pixels,Usage"] + ['{},"{}",{}'.format(*row.split(",")) for row in rows[1:]]
    path.write_bytes(("\ufeff" + "\r\n".join(quoted) + "\r\n\r\n").encode())
    prepare(path)
    assert_official(open_dataset("fer2013"), faces)


def test_the_competition_folder_uses_its_complete_csv(faces, pack, tmp_path):
    files = {
        "icml_face_data.csv": faces.csv("emotion, Usage, pixels").encode(),
        "train.csv": faces.csv("emotion,pixels", range(70)).encode(),
        "test.csv": faces.csv("pixels", range(70, 98)).encode(),
        "example_submission.csv": b"1,2\n0,0\n",
    }
    info = prepare(pack["zip"](tmp_path / "competition.zip", files))
    assert_official(open_dataset("fer2013"), faces)
    assert any("icml_face_data.csv is complete: test.csv, train.csv" in note for note in info.notes)


def test_train_csv_alone_gives_up_some_images_for_validation(faces, pack, tmp_path):
    files = {
        "train.csv": faces.csv("emotion,pixels", range(70)).encode(),
        "test.csv": faces.csv("pixels", range(70, 98)).encode(),
    }
    info = prepare(pack["folder"](tmp_path / "competition", files))
    assert not info.official_split
    assert info.total == 70
    assert info.split_total(Split.VAL) == 7  # an eighth of ten a class, in whole images
    assert any("they have no labels: test.csv" in note for note in info.notes)
    assert any("no validation split: 7 training images" in note for note in info.notes)


def test_test_csv_alone_has_no_labels(faces, tmp_path):
    path = tmp_path / "test.csv"
    path.write_text(faces.csv("pixels"))
    with pytest.raises(DataError, match="no `emotion` column"):
        prepare(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7,{pixels},Training", "line 100: emotion '7' is none of 0 to 6"),
        (",{pixels},Training", "line 100: emotion '' is none"),
        ("0,{pixels},Trainig", "line 100: Usage 'Trainig' is none"),
        ("0,1 2 3,Training", "line 100: 3 pixels in place of 2304"),
        ("0,{pixels} 256,Training", "line 100: 2305 pixels"),
        ("0,256{pixels},Training", "line 100: pixels that are not whole numbers"),
        ("0,-{pixels},Training", "line 100: pixels that are not whole numbers"),
        ("0", "line 100: only 1 columns"),
    ],
)
def test_a_bad_row_is_named_by_its_line(faces, tmp_path, row, message):
    path = tmp_path / "data.csv"
    path.write_text(faces.csv() + row.format(pixels=" ".join(["7"] * 2304)) + "\n")
    with pytest.raises(DataError, match=message):
        prepare(path)


def autumn_files(faces, labels, names=None, struct=True):
    parts = {"train": range(70), "valid": range(70, 84), "test": range(84, 98)}
    return {
        f"data/{split}-00000-of-00001.parquet": faces.parquet(rows, "image", "label", labels, names, struct=struct)
        for split, rows in parts.items()
    }


@pytest.mark.parametrize("struct", [True, False])
def test_parquet_with_image_and_label_is_in_the_csvs_order(faces, pack, tmp_path, struct):
    info = prepare(pack["folder"](tmp_path / "fer2013", autumn_files(faces, faces.labels, struct=struct)))
    dataset = open_dataset("fer2013")
    for split in Split:
        chosen = np.flatnonzero(faces.usages == split)
        assert by_pixels(dataset, split) == {faces.images[i].tobytes(): int(faces.labels[i]) for i in chosen}
    assert not info.official_split  # only the official sizes would prove it
    assert any("official sizes" in note for note in info.notes)


def test_class_names_in_a_parquets_metadata_decide_the_order(faces, pack, tmp_path):
    alphabetical = [ALPHABETICAL.index(CLASSES[label]) for label in faces.labels]
    prepare(pack["zip"](tmp_path / "fer2013.zip", autumn_files(faces, alphabetical, names=ALPHABETICAL)))
    found = open_dataset("fer2013")
    assert by_pixels(found, Split.TRAIN) == {faces.images[i].tobytes(): int(faces.labels[i]) for i in range(70)}


def wds_files(faces, kind):
    alphabetical = [ALPHABETICAL.index(CLASSES[label]) for label in faces.labels]
    parts = {"train": range(70), "test": range(70, 98)}
    if kind == "parquet":
        return {
            f"default/{split}/0000.parquet": faces.parquet(rows, "jpg", "cls", alphabetical)
            for split, rows in parts.items()
        }
    files = {"classnames.txt": "\n".join(ALPHABETICAL).encode(), "test/nshards.txt": b"1"}
    for split, rows in parts.items():
        samples = {}
        for number, i in enumerate(rows):
            samples[f"s{number:07d}.cls"] = str(alphabetical[i]).encode()
            samples[f"s{number:07d}.jpg"] = faces.encoded(i)
        files[f"{split}/0.tar"] = samples
    return files


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_clip_benchmark_has_alphabetical_labels_and_a_pooled_test_split(faces, pack, tmp_path, kind):
    files = wds_files(faces, kind)
    for name, content in files.items():
        if isinstance(content, dict):
            shard = pack["tar"](tmp_path / "shard.tar", content)
            files[name] = shard.read_bytes()
    info = prepare(pack["folder"](tmp_path / "wds_fer2013", files))
    dataset = open_dataset("fer2013")
    wanted = {image.tobytes(): int(label) for image, label in zip(faces.images, faces.labels, strict=True)}
    found = {key: label for split in Split for key, label in by_pixels(dataset, split).items()}
    assert found == wanted
    assert [info.split_total(split) for split in Split] == [70, 14, 14]
    assert all(count == 2 for split in ("val", "test") for count in info.counts[split].values())
    assert not info.official_split
    assert any("pooled test split was divided" in note for note in info.notes)


def test_without_pyarrow_parquet_asks_for_it(faces, pack, tmp_path, monkeypatch):
    source = pack["folder"](tmp_path / "fer2013", autumn_files(faces, faces.labels))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match="needs pyarrow") as caught:
        prepare(source)
    assert "fersweep[parquet]" in caught.value.hint


def test_a_folder_that_only_holds_the_archive(faces, pack, tmp_path):
    (tmp_path / "Downloads").mkdir()
    pack["zip"](tmp_path / "Downloads" / "archive.zip", faces.kaggle_files())
    prepare(tmp_path / "Downloads")
    assert_official(open_dataset("fer2013"), faces)


def test_several_archives_ask_for_one(faces, pack, tmp_path):
    (tmp_path / "Downloads").mkdir()
    for name in ("a.zip", "b.zip"):
        pack["zip"](tmp_path / "Downloads" / name, faces.kaggle_files())
    with pytest.raises(DataError, match=r"a\.zip, b\.zip"):
        prepare(tmp_path / "Downloads")


def test_a_folder_of_links_as_download_caches_have_them(faces, pack, tmp_path):
    real = pack["folder"](tmp_path / "blobs", faces.kaggle_files())
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "train").symlink_to(real / "train")
    (tmp_path / "snapshot" / "test").symlink_to(real / "test")
    (tmp_path / "snapshot" / "round").symlink_to(tmp_path / "snapshot")
    prepare(tmp_path / "snapshot")
    assert_official(open_dataset("fer2013"), faces)
