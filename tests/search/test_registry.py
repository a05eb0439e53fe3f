"""Sweeps are created from files, found by id, and never half there."""

import json
from contextlib import closing

import pytest
import yaml

from fer_sweep.errors import InputError, NothingToDo, SweepFileError
from fer_sweep.files import sweep_folder
from fer_sweep.search import registry
from fer_sweep.search.storage import list_sweeps
from tests.search.conftest import refused


@pytest.fixture
def file(sweep_file, settings):
    shift = {"parameters": {"shift": {"min": 0.0, "max": 0.1}}}
    return sweep_file(run_cap=7, parameters={**settings()["parameters"], "augment": shift})


def test_created_sweep_is_found_by_its_id_or_as_the_last_one_with_its_constants_and_cap(file):
    registry.create(file)
    entry = registry.create(file, constants={"lr": 0.005, "augment.shift": 0.05}, count=3, max_gap=0.15)
    assert registry.find(entry.id) == registry.find(None) == entry
    assert registry.load(entry).run_cap == 3
    with closing(registry.open_search(entry)) as search:
        config = search.next_trial("cpu0").config
    assert (config.lr, config.augment.shift) == (0.005, 0.05)
    stored = yaml.safe_load((sweep_folder(entry.id) / "sweep.yaml").read_text())
    assert stored["parameters"]["lr"] == {"value": 0.005}
    with refused(InputError, "no sweep", hint=entry.id):
        registry.find(entry.id[:-1] + "?")


def test_refused_file_creates_nothing(sweep_file):
    with pytest.raises(SweepFileError, match=r"line \d+: parameters.rl"):
        registry.create(sweep_file(parameters={"model": {"value": "vit"}, "rl": {"min": 0.1, "max": 1.0}}))
    with pytest.raises(NothingToDo):
        registry.find(None)


def test_moved_project_and_one_of_an_earlier_version_keep_their_sweeps(file, tmp_path, monkeypatch):
    entry = registry.create(file)
    path = sweep_folder(entry.id) / "sweep.json"
    content = json.loads(path.read_text())
    del content["confirms"]
    path.write_text(json.dumps(content))
    (tmp_path / ".fersweep").rename(tmp_path / "moved")
    monkeypatch.setenv("FERSWEEP_HOME", str(tmp_path / "moved"))
    assert registry.find(entry.id) == entry
    assert registry.state_of(entry) == "running"


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
