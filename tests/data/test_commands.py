"""What the commands about data sets print and do: warnings and counts, next steps, deletion."""

import re
from pathlib import Path

import pytest

from fer_sweep.data import store
from fer_sweep.data.cache import list_datasets, prepare
from tests.data.conftest import listed
from tests.support.faces import Faces, write_folder


@pytest.fixture
def source(faces, tmp_path):
    return write_folder(tmp_path / "faces", faces.files())


def test_prepare_warns_of_classes_without_images_and_ends_with_counts(faces, tmp_path, shell):
    files = {path: content for path, content in faces.files().items() if "/sad/Public" not in path}
    code, out, err = shell("data", "prepare", str(write_folder(tmp_path / "a", files)))
    assert code == 0, err
    assert "\nwarning: val has no images of sad\n" in out and "\nnote: the official split was recovered" in out
    lines = [line.split() for line in out.splitlines()]
    table = lines[lines.index(["class", "train", "val", "test"]) + 2 :]
    assert table[0] == ["angry", "10", "2", "2"] and table[4] == ["sad", "10", "0", "2"]
    assert table[-1] == ["all", "70", "12", "14"]
    assert err.splitlines()[-1] == "next: fersweep data audit fer2013"


def test_audit_names_next_steps_that_work(tmp_path, shell, monkeypatch):
    monkeypatch.setattr("fer_sweep.data.audit.FEW", 20)
    Faces.barred([70, 14], 70).prepared(tmp_path, "copied", "faces")
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cache"))
    code, _, err = shell("data", "audit", "copied")
    steps = re.findall(r"next: fersweep (.*)", err)
    assert "note: 7 val images are in training too" in err and "note: train_samples takes 20 of the 70" in err
    assert code == 0 and [step.split()[-1] for step in steps] == ["drop_val_copies=true", "train_samples=20"]
    for step in steps:
        code, _, err = shell(*step.split())
        assert code == 0, err


def test_audit_of_good_data_leads_on_to_a_sweep(source, shell):
    prepare(source, "good")
    _, _, err = shell("data", "audit", "good")
    assert err == "next: fersweep create simple_cnn --data good\n"


def test_data_sets_are_deleted_and_what_others_use_stays(source, shell):
    prepare(source, "one")
    prepare(source, "two")
    code, out, err = shell("data", "delete", "one", "one")
    assert (code, out, err) == (0, "deleted data set one (98 images from faces)\n", "")
    assert [info.name for info in list_datasets()] == ["two"] and len(listed()) == 2
    (store.data_folder() / "two.json").write_text("{")
    code, out, _ = shell("data", "delete", "two")
    assert (code, out) == (0, "deleted data set two (its description was damaged)\n")
    assert listed() == []


def test_deleting_notes_the_sweeps_that_pin_the_data(source, shell):
    prepare(source, "mine")
    assert shell("create", "simple_cnn", "--data", "mine")[0] == 0
    (pin,) = Path(".fersweep/sweeps").glob("*/data-mine.json")
    code, _, err = shell("data", "delete", "mine")
    assert code == 0
    assert err.startswith(f"note: mine is pinned by sweep {pin.parent.name}, whose trials need it")
    assert "fersweep data prepare faces --name mine" in err


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("mien", "no data set 'mien' has been prepared; nothing was deleted", "did you mean mine?"),
        ("../mine", "no data set '../mine' has been prepared", "did you mean mine?"),
        ("synthetic", "data set synthetic cannot be deleted", "draws it"),
    ],
)
def test_unknown_names_and_drawn_faces_are_not_deleted(name, message, hint, source, shell):
    prepare(source, "mine")
    before = listed()
    code, out, err = shell("data", "delete", "mine", name)
    assert (code, out) == (2, "") and message in err and hint in err
    assert listed() == before
