"""Data sets are found where Kaggle, Colab and browsers put them, and a drive is not walked through."""

import json
from pathlib import Path

import pytest

import fer_sweep.data.discovery as discovery
from fer_sweep.data.discovery import Place, discover, usual_places
from fer_sweep.errors import DataError
from tests.support.faces import write_folder, write_zip


@pytest.fixture
def kaggle(faces):
    """Image folders as Kaggle has them."""
    return dict(list(faces.files().items())[::3])


@pytest.mark.parametrize("where", ["fer2013", "datasets/msambare/fer2013", "fer2013/versions/1", "."])
def test_kaggle_folders_are_found_at_any_usual_depth(where, kaggle, tmp_path):
    write_folder(tmp_path / where, kaggle)
    found = discover([Place(tmp_path, 5), Place(tmp_path / where, 1)])  # the places lie in each other
    assert (found.taken, found.others) == (tmp_path / where, ())


@pytest.mark.parametrize("name", ["archive.zip", "fer2013.zip", "Emotion-Detection.zip", "icml_face_data.csv"])
def test_file_is_found_by_its_name_and_known_by_its_content(name, kaggle, tmp_path):
    others = {"test.csv": b"pixels\n1 2", "grades.csv": b"name,grade\nme,1"}
    write_zip(write_folder(tmp_path / "x", others) / "face-cream.zip", {"prices.txt": b"none"})
    with pytest.raises(DataError, match="no FER2013 found in") as caught:
        discover([Place(tmp_path, 1)])
    assert str(tmp_path) in str(caught.value)
    assert "kaggle datasets download -d msambare/fer2013" in caught.value.hint
    if name.endswith(".zip"):
        write_zip(tmp_path / "x" / name, kaggle)
    else:
        (tmp_path / "x" / name).write_bytes(b"emotion, Usage, pixels\n0,Training,1 2")
    found = discover([Place(tmp_path, 1)])
    assert found.taken == tmp_path / "x" / name


def test_official_split_wins_and_what_else_was_seen_is_named(kaggle, tmp_path):
    own = [f"{split}/{label}/1.png" for split in ("train", "validation") for label in ("happy", "sad")]
    write_folder(tmp_path / "a", dict.fromkeys(own, b""))
    write_folder(tmp_path / "b" / "fer2013", kaggle)
    write_folder(tmp_path / "b", {"fer-cut.zip": b"PK\x03\x04 cut off"})
    found = discover([Place(tmp_path / "a", 1), Place(tmp_path / "b", 1)])
    assert (found.taken, found.others) == (tmp_path / "b" / "fer2013", (tmp_path / "a",))
    assert "fer-cut.zip" in found.unusable[0]


def test_drive_is_not_walked_through(tmp_path, monkeypatch):
    for number in range(30):
        (tmp_path / f"{number:02}" / "photos" / "deeper" / "fer2013").mkdir(parents=True)
    (tmp_path / "00" / "loop").symlink_to(tmp_path)
    looked_into, listed = [], discovery._listed
    monkeypatch.setattr(discovery, "_listed", lambda folder: looked_into.append(folder) or listed(folder))
    for most, wanted in ((500, 61), (10, 10)):  # the root, thirty folders and what is in each; the loop leads nowhere
        monkeypatch.setattr(discovery, "MOST_FOLDERS", most)
        looked_into.clear()
        with pytest.raises(DataError):
            discover([Place(tmp_path, 2)])
        assert len(looked_into) == wanted


def test_usual_places_are_kaggles_colabs_and_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    paths = {str(place.path) for place in usual_places()}
    assert paths >= {"/kaggle/input", "/content", "/content/drive/MyDrive", str(Path.cwd())}
    assert {f"{tmp_path}/me/Downloads", f"{tmp_path}/me/.cache/kagglehub/datasets"} <= paths


@pytest.mark.parametrize("word", ["auto", "./auto"])
def test_command_prepares_what_it_finds_and_a_folder_called_auto_can_be_named(word, shell, kaggle, monkeypatch):
    write_folder(Path("auto"), kaggle)
    monkeypatch.setattr(discovery, "usual_places", lambda: (Place(Path.cwd(), 2),))
    code, out, err = shell("data", "prepare", word, "--json")
    assert code == 0, err
    assert sum(json.loads(out)["counts"]["train"].values()) == sum("Training" in path for path in kaggle)
    assert ("using " in err) == (word == "auto")
