"""Data sets are found where Kaggle, Colab and browsers put them, and a drive is not walked through."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

import fer_sweep.data.discovery as discovery
from fer_sweep.cli import main
from fer_sweep.data.discovery import Place, discover, usual_places
from fer_sweep.errors import DataError


@pytest.fixture
def faces(tiny_cache: Path) -> Path:
    """Image folders as Kaggle has them."""
    return tiny_cache.parent / "faces"


def pack(folder: Path, archive: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.rglob("*.png"):
            packed.write(path, path.relative_to(folder))
    return archive


@pytest.mark.parametrize(
    "where",
    ["fer2013", "datasets/msambare/fer2013", "fer2013/versions/1", "."],
)
def test_kaggle_folders_are_found_at_any_usual_depth(where: str, faces: Path, tmp_path: Path) -> None:
    root = tmp_path / "input"
    shutil.copytree(faces, root / where, dirs_exist_ok=True)
    found = discover([Place(root, 5)])
    assert found.taken.path == root / where
    assert found.taken.is_official
    assert found.others == ()


@pytest.mark.parametrize("name", ["archive.zip", "fer2013.zip", "Emotion-Detection.zip"])
def test_an_archive_is_found_by_its_name_and_known_by_its_content(name: str, faces: Path, tmp_path: Path) -> None:
    archive = pack(faces, tmp_path / "Downloads" / name)
    with zipfile.ZipFile(tmp_path / "Downloads" / "face-cream.zip", "w") as other:
        other.writestr("prices.txt", "none")
    assert discover([Place(tmp_path / "Downloads", 2)]).taken.path == archive


def test_a_csv_is_taken_as_a_file_and_one_without_labels_is_not(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "test.csv").write_text("pixels\n1 2")
    (tmp_path / "x" / "grades.csv").write_text("name,grade\nme,1")
    with pytest.raises(DataError):
        discover([Place(tmp_path, 1)])
    (tmp_path / "x" / "icml_face_data.csv").write_text("emotion, Usage, pixels\n0,Training,1 2")
    found = discover([Place(tmp_path, 1)])
    assert (found.taken.path, found.taken.is_official) == (tmp_path / "x" / "icml_face_data.csv", True)


def test_the_official_split_wins_and_what_else_was_seen_is_named(faces: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        for label in ("happy", "sad"):
            (tmp_path / "a" / split / label).mkdir(parents=True)
            (tmp_path / "a" / split / label / "1.png").touch()
    shutil.copytree(faces, tmp_path / "b" / "fer2013")
    (tmp_path / "b" / "fer-cut.zip").write_bytes(b"PK\x03\x04 cut off")
    found = discover([Place(tmp_path / "a", 1), Place(tmp_path / "b", 1)])
    assert found.taken.path == tmp_path / "b" / "fer2013"
    assert [other.path for other in found.others] == [tmp_path / "a"]
    assert "fer-cut.zip" in found.unusable[0]


def test_a_drive_is_not_walked_through(tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}" / "photos" / "deeper" / "fer2013").mkdir(parents=True)
    (tmp_path / "00" / "loop").symlink_to(tmp_path)
    looked_into: list[Path] = []
    listed = discovery._listed

    def noted(folder: Path) -> tuple[list[Path], list[Path]]:
        looked_into.append(folder)
        return listed(folder)

    monkeypatch.setattr(discovery, "_listed", noted)
    with pytest.raises(DataError):
        discover([Place(tmp_path, 2)])
    assert len(looked_into) == 61  # the root, thirty folders and what is in each; the loop leads nowhere
    looked_into.clear()
    monkeypatch.setattr(discovery, "MOST_FOLDERS", 10)
    with pytest.raises(DataError):
        discover([Place(tmp_path, 2)])
    assert len(looked_into) == 10


def test_places_may_lie_in_each_other(faces: Path, tmp_path: Path) -> None:
    drive = tmp_path / "drive" / "MyDrive"
    shutil.copytree(faces, drive / "data" / "fer2013")
    found = discover([Place(tmp_path, 2), Place(drive, 2), Place(drive / "data", 1)])
    assert found.taken.path == drive / "data" / "fer2013"
    assert found.others == ()


def test_where_there_is_none_it_says_where_it_looked_and_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no FER2013 found in .*nowhere") as error:
        discover([Place(tmp_path / "nowhere", 3)])
    assert "kaggle datasets download -d msambare/fer2013" in str(error.value.hint)


def test_the_usual_places_are_kaggles_colabs_and_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    paths = {str(place.path) for place in usual_places()}
    assert paths >= {"/kaggle/input", "/content", "/content/drive/MyDrive", str(Path.cwd())}
    assert {f"{tmp_path}/me/Downloads", f"{tmp_path}/me/.cache/kagglehub/datasets"} <= paths


@pytest.mark.parametrize("word", ["auto", "./auto"])
def test_the_command_prepares_what_it_finds_and_a_folder_called_auto_can_be_named(
    word: str, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(faces, tmp_path / word.replace("./", ""))
    monkeypatch.setattr(discovery, "usual_places", lambda: (Place(Path.cwd(), 2),))
    monkeypatch.setattr(sys, "argv", ["fersweep", "data", "prepare", word, "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    out, err = capsys.readouterr()
    assert json.loads(out)["counts"]["train"]["angry"] == 20
    assert ("taken:" in err) == (word == "auto")
