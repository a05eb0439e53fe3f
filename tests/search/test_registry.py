"""Sweeps are created from files, found by id, and never half there."""

from pathlib import Path

import pytest
import yaml
from fer_sweep.search.entries import known

from fer_sweep.errors import InputError, NothingToDo, StorageError, SweepFileError
from fer_sweep.files import sweep_folder
from fer_sweep.search import registry
from fer_sweep.store.sweeps import list_sweeps

SWEEP = """\
program: x
method: random
metric: {name: best_val_acc, goal: maximize}
early_terminate: {type: hyperband, min_iter: 3}
run_cap: 7
parameters:
  model: {value: simple_cnn}
  epochs: {value: 20}
  lr: {min: 0.001, max: 0.01}
  augment:
    parameters:
      shift: {min: 0.0, max: 0.1}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weird 'name' ünï.yaml"
    path.write_text(SWEEP)
    return path


def test_created_sweep_is_found_by_its_id_or_as_the_last_one_with_its_constants_and_cap(file):
    registry.create(file)
    entry = registry.create(file, constants={"lr": 0.005, "augment.shift": 0.05}, count=3, max_gap=0.15)
    assert registry.find(entry.id) == registry.find(None) == entry
    assert registry.load(entry).run_cap == 3
    search = registry.open_search(entry)
    config = search.next_trial("cpu0").config
    search.close()
    assert (config.lr, config.augment.shift) == (0.005, 0.05)
    stored = yaml.safe_load((sweep_folder(entry.id) / "sweep.yaml").read_text())
    assert stored["parameters"]["lr"] == {"value": 0.005}
    assert registry.state_of(entry) == "running"


def test_refused_file_creates_nothing(file):
    file.write_text(SWEEP.replace("lr:", "rl:"))
    with pytest.raises(SweepFileError, match="line 9"):
        registry.create(file)
    with pytest.raises(NothingToDo):
        registry.find(None)


def test_hyperband_that_never_stops_a_trial_is_noted(file):
    notes: list[str] = []
    registry.checked(file, constants={"epochs": 2}, note=notes.append)
    assert len(notes) == 1
    assert "min_iter" in notes[0]


def test_unknown_id_is_refused_with_the_nearest_one(file):
    entry = registry.create(file)
    with pytest.raises(InputError) as caught:
        registry.find(entry.id[:-1] + "?")
    assert entry.id in (caught.value.hint or "")


def test_damaged_description_is_named(file):
    (sweep_folder(registry.create(file).id) / "sweep.json").write_text("{")
    with pytest.raises(StorageError, match=r"sweep\.json"):
        known()


def test_moved_project_keeps_its_sweeps(file, tmp_path, monkeypatch):
    entry = registry.create(file)
    (tmp_path / ".fersweep").rename(tmp_path / "moved")
    monkeypatch.setenv("FERSWEEP_HOME", str(tmp_path / "moved"))
    assert registry.state_of(registry.find(entry.id)) == "running"


@pytest.mark.parametrize("by", ["option", "environment"])
def test_relative_storage_is_found_from_other_folders(file, tmp_path, monkeypatch, by):
    if by == "environment":
        monkeypatch.setenv("FERSWEEP_STORAGE", "sqlite:///own.db")
    entry = registry.create(file, storage="sqlite:///own.db" if by == "option" else None)
    monkeypatch.delenv("FERSWEEP_STORAGE", raising=False)
    assert [found.id for found in list_sweeps(f"sqlite:///{tmp_path / 'own.db'}")] == [entry.id]
    assert not (tmp_path / ".fersweep" / "sweeps.db").exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert registry.state_of(entry) == "running"
