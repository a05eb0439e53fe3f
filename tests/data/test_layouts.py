"""Every layout, small and in its real format: the same faces, labels and splits come out of each."""

import gzip
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fer_sweep.data.cache import Split, find_dataset, open_dataset, prepare
from fer_sweep.records import CLASSES
from tests.data.conftest import ALPHABETICAL, csv_files, folders, numbered, refused, shards, tables
from tests.support.faces import PACK, Faces, encode, labels_by_pixels, tar_bytes, write_folder, write_tar, write_zip

IN_CSV_ORDER = f"the files do not name their classes: labels 0 to 6 were read as {', '.join(CLASSES)}"
IN_FOLDER_ORDER = f"the files do not name their classes: labels 0 to 6 were read as {', '.join(ALPHABETICAL)}"
SPELT = [*ALPHABETICAL[:-1], "suprise"]


def source(files, *notes, official=False, splits=None, left_out=0):
    """A folder's files, and what is read of them: all but the first faces, in the official splits unless given."""
    return SimpleNamespace(files=files, notes=notes, official=official, splits=splits, left_out=left_out)


def kaggle(*notes, add=lambda faces: {}, change=str):
    """Kaggle's folders with more files or other paths; still official."""
    return source(lambda f: {change(path): file for path, file in f.files().items()} | add(f), *notes, official=True)


def divided(file, second, middle=""):
    """Folders of one's own: 70 images in train, 28 in another."""
    return lambda f: {
        f"{'train' if i < 70 else second}{middle}/{CLASSES[label]}/{file.format(i)}": f.encoded(i)
        for i, label in enumerate(f.labels)
    }


def of_kind(kind, ending, **options):
    return source(
        lambda f: {path.replace("png", ending): file for path, file in f.files(kind=kind, **options).items()},
        official=True,
    )


def changed_images(f):
    """One image has 16 bits, one several frames, one colours."""
    deep, animated, coloured = [path for path in f.files() if "/happy/" in path][:3]
    return {
        deep: encode(f.images[3].astype(np.uint16) * 257),
        animated: f.encoded(10, save_all=True, append_images=[Image.fromarray(f.images[11])]),
        coloured: encode(np.stack([f.images[17]] * 3, axis=2)),
    }


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


def alphabetical(f):
    return numbered(f, ALPHABETICAL)


def windows(f):
    """A CSV with a byte order mark, quotes and an empty line at the end."""
    header, *rows = f.csv().splitlines()
    quoted = [header, *('{},"{}",{}'.format(*row.split(",")) for row in rows)]
    return ("\ufeff" + "\r\n".join(quoted) + "\r\n\r\n").encode()


def renamed(change):
    """Kaggle's folders with other names for the classes; ``change`` is called with the class and its label."""
    names = {name: change(name, label) for label, name in enumerate(CLASSES)}
    return lambda path: "/".join(names.get(part, part) for part in path.split("/"))


def csv_text(change, *notes, name="a.csv", official=True, **options):
    return source(lambda f: {name: change(f.csv()).encode()}, *notes, official=official, **options)


def worded(text):
    """A CSV with names of classes for labels."""
    header, *rows = text.splitlines()
    return "\n".join([header, *(CLASSES[int(row[0])].upper() + row[1:] for row in rows)])


SOURCES = {
    "numbers before classes": kaggle(
        "'0_angry' as angry, '1_disgust' as disgust", change=renamed(lambda name, label: f"{label}_{name}")
    ),
    "numbered class folders in a stated order": kaggle(
        "have numbers, which were read as classnames.txt says: 0 neutral, 1 surprise, 2 sad",
        change=renamed(lambda name, label: f"class_{6 - label:02}"),
        add=lambda f: {"classnames.txt": "\n".join(reversed(CLASSES)).encode()},
    ),
    "other data beside class folders": kaggle(
        "2 other files were left out: 'archive.zip', 'labels.csv'",
        add=lambda f: {"archive.zip": b"PK\5\6" + bytes(18), "labels.csv": b"path,label\n", "README.md": b"hello"},
    ),
    "misspelt class folder": kaggle(
        "class names were read as follows: 'suprise' as surprise", change=lambda path: path.replace("surpr", "supr")
    ),
    "pictures in no class folder": kaggle(
        "2 images that lie in no class folder were left out", add=lambda f: {"docs/a.png": f.encoded(0), "a.jpg": b"?"}
    ),
    "classes that FER2013 lacks": kaggle(
        "1 images of class contempt were left out",
        "2 images of class nf were left out",
        add=lambda f: dict.fromkeys(["train/contempt/a.png", "train/NF/a.png", "train/NF/b.png"], f.encoded(0)),
    ),
    "everything twice": kaggle(
        "98 images in deeper folders", add=lambda f: {f"a/{path}": file for path, file in f.files().items()}
    ),
    "clutter of file managers": kaggle(
        add=lambda f: dict.fromkeys(
            ["__MACOSX/train/sad/1.png", "train/.DS_Store", "train/sad/Desktop.ini"], b"\0\5\26\7"
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
    "data sets side by side": source(
        lambda f: {f"{'ab'[len(path) % 2]}/{path}": c for path, c in folders("train", "val", "test")(f).items()},
        "several data sets were put together, split by split: 'a', 'b'",
    ),
    "classes alone": source(folders(".", ".", "."), "a split: all are training images", splits=(84, 14, 0)),
    "splits by a part of their names": source(
        folders("FER2013Train", "Validation Images/a", "test_set"), "splits were read from names:"
    ),
    **{f"images as {kind}": of_kind(kind, kind.lower()) for kind in ("TIFF", "GIF", "BMP")},
    "images as TIF": of_kind("TIFF", "TIF"),
    "images as WEBP": of_kind("WEBP", "webp", lossless=True),
    "images of other depth and colour, and several in a file": kaggle(
        "2 images were not 48x48 grey and were converted to it",
        "1 images had more than 8 bits a pixel and were scaled to 8 from the full range of their kind",
        "1 files hold several images: the first of each was taken",
        add=changed_images,
    ),
    "CSV with semicolons": csv_text(lambda text: text.replace(",", ";"), "columns are separated by ';'"),
    "CSV with tabs": csv_text(lambda text: text.replace(",", "\t"), "separated by '\\t'", name="a.tsv"),
    "CSV with words for labels": csv_text(worded),
    "CSV with decimal labels": csv_text(lambda text: text.replace("\n3,", "\n3.0,")),
    "CSV with empty rows": csv_text(lambda text: text + ",,\n , ,\n", "2 empty rows were left out"),
    "CSV with contempt": csv_text(
        lambda text: text.replace("\n0,", "\ncontempt,", 1),
        "1 images of class contempt were left out",
        left_out=1,
        splits=(69, 14, 14),
    ),
    "CSV with a plain word for a split": csv_text(
        lambda text: text.replace("PrivateTest", "Test"), "splits were read from names: 'test' as test", official=False
    ),
    "CSV in a folder": source(lambda f: {"README": b"hello", "a/fer2013.csv": f.csv().encode()}, official=True),
    "CSV from Windows": source(lambda f: {"a.csv": windows(f)}, official=True),
    "gzipped CSV": source(lambda f: {"a.csv.gz": gzip.compress(f.csv().encode())}, official=True),
    "competition": source(competition, "icml_face_data.csv is complete: test.csv, train.csv", official=True),
    "CSV files of a split each": source(
        csv_files("train.csv", "val/b.csv", "test_set.csv", columns="emotion,pixels"), IN_CSV_ORDER
    ),
    "CSV files with Usage": source(csv_files("a.csv", "b.csv", "c.csv"), official=True),
    "CSV with other words for splits": source(
        lambda f: {"a.csv": f.csv().replace("PrivateTest", "Test_Set").encode()},
        "splits were read from names: 'test_set' as test",
    ),
    "parquet": source(tables(), "official sizes", IN_CSV_ORDER),
    "parquet of plain bytes": source(tables(struct=False), "official sizes", IN_CSV_ORDER),
    "parquet with digits for class names": source(tables(names=list("0123456")), IN_CSV_ORDER),
    "parquet with misspelt class names": source(
        tables(alphabetical, SPELT), "class names were read as follows: 'suprise' as surprise"
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
    "WebDataset with folders for classes": source(
        lambda f: {"fer-train-0.tar": tar_bytes(f.shard(range(98), alphabetical(f), "sad/"))}, splits=(84, 14, 0)
    ),
    "WebDataset with class names": source(
        shards([*reversed(CLASSES[:-1]), "nuetral"]), "class names were read as follows: 'nuetral' as neutral"
    ),
}


def check(faces, wanted, name="fer2013"):
    """Hold what was prepared against what a source should give."""
    info, found = find_dataset(name), open_dataset(name)
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


def test_image_folders_are_the_same_in_a_folder_and_in_each_archive(faces, tmp_path):
    fingerprints = set()
    for kind, pack in PACK.items():
        info = prepare(pack(tmp_path / f"archive.{kind}", dict(reversed(faces.files().items()))), kind)
        check(faces, kaggle(), kind)
        assert info.source == f"archive.{kind}"
        fingerprints.add(info.fingerprint)
    assert len(fingerprints) == 1


def test_single_archive_in_a_source_is_opened_and_none_within_it(faces, tmp_path):
    inner = write_zip(tmp_path / "inner.zip", faces.files()).read_bytes()
    outer = write_zip(tmp_path / "outer.zip", {"a.zip": inner})
    prepare(outer)
    check(faces, kaggle())
    refused(write_zip(tmp_path / "deeper.zip", {"a.zip": outer.read_bytes()}), "no data set, but archives", name="b")


def test_backslashes_of_a_zip_from_windows_part_folders(faces, tmp_path):
    prepare(write_zip(tmp_path / "a.zip", {path.replace("/", "\\"): file for path, file in faces.files().items()}))
    check(faces, kaggle())


def test_folder_of_links_is_followed_as_download_caches_have_them(faces, tmp_path):
    real = write_folder(tmp_path / "blobs", faces.files())
    (tmp_path / "snapshot").mkdir()
    for name, target in {"train": real / "train", "test": real / "test", "round": tmp_path / "snapshot"}.items():
        (tmp_path / "snapshot" / name).symlink_to(target)
    prepare(tmp_path / "snapshot")
    check(faces, kaggle())


def test_train_csv_alone_gives_up_some_images_for_validation(faces, tmp_path):
    files = {name: content for name, content in competition(faces).items() if name in ("train.csv", "test.csv")}
    info = prepare(write_folder(tmp_path / "competition", files))
    assert not info.official_split
    assert [info.split_total(split) for split in Split] == [63, 7, 0]  # an eighth of ten a class, in whole images
    notes = "\n".join(info.notes)
    assert "they have no labels: test.csv" in notes and "no validation split: 7 training images" in notes


def test_files_that_are_not_read_are_counted_by_kind_and_absent_classes_noted(faces, tmp_path):
    files = {path.replace("png", "heic") if "/angry/" in path else path: c for path, c in faces.files().items()}
    files = {path: content for path, content in files.items() if "/sad/PublicTest" not in path}
    info = prepare(write_folder(tmp_path / "a", files | {"train/happy/LICENSE": b"free", "README.md": b"hello"}))
    assert info.total == 82
    assert any("15 files of kinds that are not read were left out: .heic 14, no ending 1;" in n for n in info.notes)
    assert {"there are no images of angry", "val has no images of sad"} <= set(info.notes)


def test_folders_in_a_webdataset_shard_name_splits(faces, tmp_path):
    files = {}
    for usage, folder in enumerate(["train/", "val/", "test/"]):
        files |= faces.shard(faces.rows(usage), alphabetical(faces), folder)
    prepare(write_tar(tmp_path / "a.tar", files))
    check(faces, source(Faces.files))


def test_parquet_without_pyarrow_says_what_to_install(faces, tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "a", tables()(faces))
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(folder, "needs pyarrow", r"fersweep\[parquet\]")
