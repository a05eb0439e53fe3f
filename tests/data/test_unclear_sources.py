"""Sources whose classes, splits or rows are not known: refused by name, and nothing is guessed."""

import pytest

from tests.data.conftest import ALPHABETICAL, csv_files, folders, refused, shards, tables
from tests.support.faces import write_folder

EMPTY_ZIP = b"PK\5\6" + bytes(18)
REFUSED = {
    "class folder": (
        lambda f: f.files() | {"train/hapy/a.png": f.encoded(0)}, r"train/hapy/a\.png.*'hapy'", r"did you mean happy\?"
    ),
    "split folder": (folders("train", "holdout", "test"), "^a: .*'holdout'.* no known split", "name each for"),
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
        r"classnames\.txt: 'boredom' is none of the seven classes", "the classes are angry, disgust, fear",
    ),
    **{
        f"class of a parquet {names[:2]}": (
            tables(names=names, files=["train"]), r"train\.parquet: the class names in its metadata: .* none of the seven"
        )
        for names in (["boredom", *ALPHABETICAL[1:]], ["angry", None], [1, 2])
    },
    "class names in one parquet of two": (
        lambda f: tables(names=ALPHABETICAL, files=["train"])(f) | {"val.parquet": f.parquet(f.rows(1))},
        r"val\.parquet: this file or one before it does not name its classes",
    ),
    "several archives": (lambda f: {"a.zip": EMPTY_ZIP, "b.zip": EMPTY_ZIP}, r"a\.zip, b\.zip"),
    "only test images": (folders("test", "test", "test"), "^a: no training images"),
    "too few to divide": (lambda f: {"train/sad/a.png": f.encoded(0)}, "too few"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unclear_source_is_refused(name, faces, tmp_path):
    files, message, *hint = REFUSED[name]
    refused(write_folder(tmp_path / "a", files(faces)), message, *hint)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7,{pixels},Training", "emotion '7' is none of 0 to 6"),
        (",{pixels},Training", "emotion '' is none"),
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
