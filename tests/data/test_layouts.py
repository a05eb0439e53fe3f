"""Every layout, small and in its real format: the same faces, labels and splits come out of each."""

import gzip
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from fer_sweep.data.cache import Split, find_dataset, open_dataset, prepare
from fer_sweep.records import CLASSES
from tests.data.conftest import ALPHABETICAL, csv_files, folders, numbered, refused, shards, tables
from tests.support.faces import PACK, Faces, Files, encode, labels_by_pixels, write_folder, write_tar, write_zip

IN_CSV_ORDER = f"the files do not name their classes: labels 0 to 6 were read as {', '.join(CLASSES)}"
IN_FOLDER_ORDER = f"there is no classnames.txt: labels 0 to 6 were read as {', '.join(ALPHABETICAL)}"


@dataclass(frozen=True)
class Source:
    """A folder with some files, and what is read of it; splits are the official ones unless given."""

    files: Callable[[Faces], Files]
    notes: tuple[str, ...]
    official: bool
    splits: tuple[int, ...] | None
    left_out: int
    """The first so many faces."""


def source(files, *notes, official=False, splits=None, left_out=0):
    return Source(files, notes, official, splits, left_out)


def kaggle(*notes, add=None, change=str):
    """Kaggle's folders with more files or other paths; still official."""
    return source(
        lambda f: {change(path): content for path, content in f.files().items()} | (add(f) if add else {}),
        *notes,
        official=True,
    )


def divided(file, second, middle=""):
    """Folders of one's own: 70 images in train, 28 in another."""
    return lambda f: {
        f"{'train' if i < 70 else second}{middle}/{CLASSES[label]}/{file.format(i)}": f.encoded(i)
        for i, label in enumerate(f.labels)
    }


def one_class_as(ending):
    kind = {"TIF": "TIFF"}.get(ending.upper(), ending.upper())
    options = {"lossless": True} if kind == "WEBP" else {}

    def files(f):
        angry = {path: 7 * n for n, path in enumerate(path for path in f.files() if "/angry/" in path)}
        encoded = {path.replace("png", ending): f.encoded(i, kind, **options) for path, i in angry.items()}
        return {path: content for path, content in f.files().items() if path not in angry} | encoded

    return source(files, official=True)


def deep_and_animated(f):
    deep, animated = [path for path in f.files() if "/happy/" in path][:2]
    more = {"save_all": True, "append_images": [Image.fromarray(f.images[11])]}
    return {deep: encode(f.images[3].astype(np.uint16) * 257), animated: f.encoded(10, **more)}


def competition(f):
    return {
        "icml_face_data.csv": f.csv("emotion, Usage, pixels").encode(),
        "train.csv": f.csv("emotion,pixels", range(70)).encode(),
        "test.csv": f.csv("pixels", range(70, 98)).encode(),
        "example_submission.csv": b"1,2\n0,0\n",
    }


def clip_benchmark(f):
    rows, labels = {"train": range(70), "test": range(70, 98)}, numbered(f, ALPHABETICAL)
    return {f"default/{split}/0.parquet": f.parquet(rows[split], labels, columns=("jpg", "cls")) for split in rows}


SPELT = [*ALPHABETICAL[:-1], "suprise"]
WORDS = {"train": "Train", "val": "Val", "test_set": "Test_Set"}
SOURCES: Mapping[str, Source] = {
    "misspelt class folder": kaggle(
        "class names were read as follows: 'suprise' as surprise", change=lambda path: path.replace("surpr", "supr")
    ),
    "class folders in other words": kaggle(change=lambda path: path.replace("/fear/", "/FEARFUL/")),
    "pictures in no class folder": kaggle(
        "2 images that lie in no class folder were left out", add=lambda f: {"docs/a.png": f.encoded(0), "a.jpg": b"?"}
    ),
    "contempt": kaggle(
        "3 images of class contempt were left out",
        add=lambda f: {f"train/contempt/Training_{i}.png": f.encoded(i) for i in range(3)},
    ),
    "everything twice": kaggle(
        "98 images in deeper folders", add=lambda f: {f"a/{p}": c for p, c in f.files().items()}
    ),
    "clutter of file managers": kaggle(
        add=lambda f: (
            {f"__MACOSX/{path}": b"\0\5\26\7" for path in f.files()}
            | {"train/.DS_Store": b"x", "train/sad/Thumbs.db": b"x", "train/sad/._Training_1.jpg": b"x"}
        )
    ),
    "official names in folders that are no splits": kaggle(
        change=lambda path: f"part{len(path) % 2}/{path.partition('/')[2]}"
    ),
    "official names in other splits": source(
        divided("Training_{}.png", "val"), "another split than their names say", splits=(70, 28, 0)
    ),
    "train and validation": source(
        divided("{}.jpg", "validation"), "not FER2013's official", "no test split", splits=(70, 28, 0)
    ),
    "folders between split and class": source(divided("{}.png", "val", "/person1"), splits=(70, 28, 0)),
    "splits by a part of their names": source(
        folders("FER2013Train", "Validation Images/a", "test_set"), "splits were read from names:"
    ),
    **{f"a class as {kind}": one_class_as(kind) for kind in ("tiff", "TIF", "gif", "bmp", "webp")},
    "deep images, and several in a file": kaggle(
        "1 images had more than 8 bits a pixel and were scaled to 8 from the full range of their kind",
        "1 files hold several images: the first of each was taken",
        add=deep_and_animated,
    ),
    "CSV in a folder": source(lambda f: {"README": b"hello", "a/fer2013.csv": f.csv().encode()}, official=True),
    "competition": source(competition, "icml_face_data.csv is complete: test.csv, train.csv", official=True),
    "CSV files of a split each": source(csv_files("train.csv", "val/b.csv", "test_set.csv", columns="emotion,pixels")),
    "CSV files with Usage": source(csv_files("a.csv", "b.csv", "c.csv"), official=True),
    "CSV with other words for splits": source(
        lambda f: {"a.csv": f.csv().replace("PrivateTest", "Test_Set").encode()},
        "splits were read from names: 'test_set' as test",
    ),
    "parquet": source(tables(), "official sizes", IN_CSV_ORDER),
    "parquet of plain bytes": source(tables(struct=False), "official sizes", IN_CSV_ORDER),
    "parquet with digits for class names": source(tables(names=list("0123456")), IN_CSV_ORDER),
    "parquet with class names": source(tables(lambda f: numbered(f, ALPHABETICAL), ALPHABETICAL)),
    "parquet with misspelt class names": source(
        tables(lambda f: numbered(f, ALPHABETICAL), SPELT), "class names were read as follows: 'suprise' as surprise"
    ),
    "parquet with class names by number": source(
        tables(lambda f: numbered(f, ALPHABETICAL), {str(number): name for number, name in enumerate(SPELT)})
    ),
    "parquet with contempt": source(
        tables(lambda f: [7] * 3 + f.labels[3:].tolist(), [*CLASSES, "contempt"]),
        "3 images of class contempt were left out",
        left_out=3,
        splits=(67, 14, 14),
    ),
    "parquet with words for labels": source(tables(lambda f: [CLASSES[i].title() + "_face" for i in f.labels])),
    "CLIP benchmark": source(clip_benchmark, "pooled test split was divided", splits=(70, 14, 14)),
    "WebDataset": source(shards(), IN_FOLDER_ORDER, "3 samples with no image of a kind that is read were left out"),
    "WebDataset with class names": source(
        shards([*reversed(CLASSES[:-1]), "nuetral"]), "class names were read as follows: 'nuetral' as neutral"
    ),
}


def check(faces, wanted):
    """Hold what was prepared against what a source should give."""
    info, found = find_dataset("fer2013"), open_dataset("fer2013")
    everything = labels_by_pixels(found.images, found.labels, range(info.total))
    assert everything == faces.by_pixels(range(wanted.left_out, len(faces)))
    assert tuple(info.split_total(split) for split in Split) == (wanted.splits or (70, 14, 14))
    for split in Split if wanted.splits is None else ():
        of_split = labels_by_pixels(found.images, found.labels, found.indices(split))
        assert of_split == faces.by_pixels(faces.rows(split))
    assert info.official_split == wanted.official
    assert [note for note in wanted.notes if not any(note in other for other in info.notes)] == []


@pytest.mark.parametrize("name", SOURCES)
def test_source_is_read(name, faces, tmp_path):
    prepare(write_folder(tmp_path / "a", SOURCES[name].files(faces)))
    check(faces, SOURCES[name])


@pytest.mark.parametrize("kind", PACK)
def test_image_folders_are_read_from_folder_and_archive(kind, faces, tmp_path):
    info = prepare(PACK[kind](tmp_path / f"archive.{kind}", faces.files()))
    check(faces, kaggle())
    assert (info.name, info.source) == ("fer2013", f"archive.{kind}")


def test_folder_and_its_zip_have_one_fingerprint(faces, tmp_path):
    first = prepare(write_folder(tmp_path / "folder", faces.files()), "one")
    second = prepare(write_zip(tmp_path / "two.zip", dict(reversed(faces.files().items()))), "two")
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("outer", ["folder", "zip"])
def test_single_archive_in_a_source_is_opened_and_none_within_it(outer, faces, tmp_path):
    inner = write_zip(tmp_path / "inner.zip", faces.files()).read_bytes()
    source = PACK[outer](tmp_path / "outer", {"a.zip": inner})
    prepare(source)
    check(faces, kaggle())
    if outer == "zip":
        refused(
            write_zip(tmp_path / "deeper.zip", {"a.zip": source.read_bytes()}), "no data set, but archives", name="b"
        )


def test_folder_of_links_is_followed_as_download_caches_have_them(faces, tmp_path):
    real = write_folder(tmp_path / "blobs", faces.files())
    (tmp_path / "snapshot").mkdir()
    for name, target in {"train": real / "train", "test": real / "test", "round": tmp_path / "snapshot"}.items():
        (tmp_path / "snapshot" / name).symlink_to(target)
    prepare(tmp_path / "snapshot")
    check(faces, kaggle())


def windows(text):
    """With a byte order mark, quotes and an empty line at the end."""
    header, *rows = text.splitlines()
    quoted = [header, *('{},"{}",{}'.format(*row.split(",")) for row in rows)]
    return ("\ufeff" + "\r\n".join(quoted) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", lambda f: f.csv().encode()),
        ("a.csv", lambda f: f.csv("emotion, Usage, pixels").encode()),
        ("a.csv", lambda f: windows(f.csv())),
        ("a.csv.gz", lambda f: gzip.compress(f.csv().encode())),
    ],
    ids=["kaggle", "competition", "windows", "gzip"],
)
def test_csv_is_read_and_keeps_its_rows(name, write, faces, tmp_path):
    (tmp_path / name).write_bytes(write(faces))
    assert prepare(tmp_path / name).official_split
    found = open_dataset("fer2013")
    for array, wanted in ((found.images, faces.images), (found.labels, faces.labels), (found.splits, faces.usages)):
        np.testing.assert_array_equal(array, wanted)


def test_train_csv_alone_gives_up_some_images_for_validation(faces, tmp_path):
    files = {name: content for name, content in competition(faces).items() if name in ("train.csv", "test.csv")}
    info = prepare(write_folder(tmp_path / "competition", files))
    assert not info.official_split
    assert [info.split_total(split) for split in Split] == [63, 7, 0]  # an eighth of ten a class, in whole images
    notes = "\n".join(info.notes)
    assert "they have no labels: test.csv" in notes and "no validation split: 7 training images" in notes


def test_images_of_another_size_and_colour_are_converted_and_counted(faces, tmp_path):
    large = np.repeat(np.repeat(faces.images[0], 3, axis=0), 3, axis=1)
    files = faces.files()
    files[next(iter(files))] = encode(np.stack([large] * 3, axis=2))
    info = prepare(write_zip(tmp_path / "faces.zip", files))
    assert "1 images were not 48x48 grey and were converted to it" in info.notes
    difference = np.abs(open_dataset("fer2013").images.astype(int) - faces.images[0]).mean(axis=(1, 2)).min()
    assert difference < 12  # a third of the size again, smoothed a little


def test_files_that_are_not_read_are_counted_by_kind_and_absent_classes_noted(faces, tmp_path):
    files = {path.replace("png", "heic") if "/angry/" in path else path: c for path, c in faces.files().items()}
    files = {path: content for path, content in files.items() if "/sad/PublicTest" not in path}
    info = prepare(write_folder(tmp_path / "a", files | {"train/happy/LICENSE": b"free", "README.md": b"hello"}))
    assert info.total == 82
    assert "15 files of kinds that are not read were left out: .heic 14, no ending 1" in info.notes
    assert {"there are no images of angry", "val has no images of sad"} <= set(info.notes)


def test_folders_in_a_webdataset_shard_name_splits(faces, tmp_path):
    files = {}
    for usage, folder in enumerate(["train/", "val/", "test/"]):
        files |= faces.shard(faces.rows(usage), numbered(faces, ALPHABETICAL), folder)
    prepare(write_tar(tmp_path / "a.tar", files))
    check(faces, source(Faces.files))


def test_parquet_without_pyarrow_says_what_to_install(faces, tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "a", tables()(faces))
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(folder, "needs pyarrow", r"fersweep\[parquet\]")
