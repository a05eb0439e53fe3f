"""Sweeps are made from files, found by id, and never half there."""

from pathlib import Path

import pytest
import yaml

from fer_sweep.errors import InputError, NothingToDo, StorageError, SweepFileError
from fer_sweep.files import sweep_folder
from fer_sweep.search import registry
from fer_sweep.search.entries import known

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


def test_what_is_created_is_found_again_with_its_constants_and_cap(file: Path) -> None:
    entry = registry.create(file, constants={"lr": 0.005, "augment.shift": 0.05}, count=3, max_gap=0.15)
    assert registry.find(entry.id) == registry.find(None) == entry
    sweep = registry.load(entry)
    assert sweep.run_cap == 3
    search = registry.open_search(entry)
    request = search.next_trial("cpu0")
    search.close()
    assert request.config.lr == 0.005
    assert request.config.augment.shift == 0.05
    stored = yaml.safe_load((sweep_folder(entry.id) / "sweep.yaml").read_text())
    assert stored["parameters"]["lr"] == {"value": 0.005}
    assert registry.state_of(entry) == "running"


def test_the_last_one_created_is_meant_when_none_is_named(file: Path) -> None:
    made = [registry.create(file) for _ in range(3)]
    assert [entry.id for entry in known()] == [entry.id for entry in made]
    assert registry.find(None) == made[-1]


def test_a_refused_file_makes_nothing(file: Path) -> None:
    file.write_text(SWEEP.replace("lr:", "rl:"))
    with pytest.raises(SweepFileError, match="line 9"):
        registry.create(file)
    with pytest.raises(NothingToDo):
        registry.find(None)


def test_what_is_probably_not_meant_is_noted(file: Path) -> None:
    notes: list[str] = []
    registry.checked(file, constants={"epochs": 2}, note=notes.append)
    assert len(notes) == 1
    assert "min_iter" in notes[0]


def test_an_unknown_id_gets_a_suggestion(file: Path) -> None:
    entry = registry.create(file)
    with pytest.raises(InputError) as caught:
        registry.find(entry.id[:-1] + "?")
    assert entry.id in (caught.value.hint or "")


def test_a_damaged_description_is_named(file: Path) -> None:
    entry = registry.create(file)
    (sweep_folder(entry.id) / "sweep.json").write_text("{")
    with pytest.raises(StorageError, match=r"sweep\.json"):
        known()


def test_a_gap_cannot_constrain_several_objectives(file: Path) -> None:
    several = SWEEP.replace("method: random", "method: custom\nscheduler: {engine: optuna}")
    several = several.replace(
        "metric: {name: best_val_acc, goal: maximize}",
        "metrics: [{name: best_val_acc, goal: maximize}, {name: train_val_gap}]",
    ).replace("early_terminate: {type: hyperband, min_iter: 3}\n", "")
    file.write_text(several)
    registry.create(file)
    with pytest.raises(InputError, match="max-gap"):
        registry.create(file, max_gap=0.1)


def test_a_moved_project_takes_its_sweeps_along(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.create(file)
    (tmp_path / ".fersweep").rename(tmp_path / "moved")
    monkeypatch.setenv("FERSWEEP_HOME", str(tmp_path / "moved"))
    assert registry.state_of(registry.find(entry.id)) == "running"


def test_a_relative_storage_is_found_from_other_folders(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.create(file, storage="sqlite:///own.db")
    assert (tmp_path / "own.db").is_file()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert registry.state_of(entry) == "running"
