"""Sweeps are created from files or to confirm a trial with further seeds, found by id, and never half there."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
import yaml

from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import InputError, NothingToDo, SweepFileError
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.selection import Candidate
from fer_sweep.sweeps.choosing import chosen, confirmed, seeds_of, with_further_seeds
from fer_sweep.sweeps.entries import known
from tests.search.conftest import refused
from tests.support.records import make_result
from tests.support.searches import create, find, sweep_ids


@pytest.fixture
def file(sweep_file, settings):
    shift = {"parameters": {"shift": {"min": 0.0, "max": 0.1}}}
    return sweep_file(run_cap=7, project="faces", parameters={**settings()["parameters"], "augment": shift})


def test_created_sweep_is_found_by_its_id_or_as_the_last_one_with_its_constants_and_cap(file):
    create(file)
    entry = create(file, constants={"lr": 0.005, "augment.shift": 0.05}, count=3, max_gap=0.15)
    assert find(entry.id).entry == find(None).entry == entry.entry
    assert entry.file.run_cap == 3
    with closing(entry.search()) as search:
        config = search.next_trial("cpu0").config
    assert (config.lr, config.augment.shift) == (0.005, 0.05)
    stored = yaml.safe_load((sweep_folder(entry.id) / "sweep.yaml").read_text())
    assert stored["parameters"]["lr"] == {"value": 0.005}
    with refused(InputError, "no sweep", hint=entry.id):
        find(entry.id[:-1] + "?")


def test_refused_file_creates_nothing(sweep_file):
    with pytest.raises(SweepFileError, match=r"line \d+: parameters.rl"):
        create(sweep_file(parameters={"model": {"value": "vit"}, "rl": {"min": 0.1, "max": 1.0}}))
    with pytest.raises(NothingToDo):
        find(None)


def test_moved_project_and_one_of_an_earlier_version_keep_their_sweeps(file, tmp_path, monkeypatch):
    entry = create(file)
    path = sweep_folder(entry.id) / "sweep.json"
    content = json.loads(path.read_text())
    del content["confirms"]
    path.write_text(json.dumps(content))
    entry.close()
    (tmp_path / ".fersweep").rename(tmp_path / "moved")
    monkeypatch.setenv("FERSWEEP_HOME", str(tmp_path / "moved"))
    assert find(entry.id).entry == entry.entry
    assert entry.state == "running"


def test_relative_storage_is_found_from_other_folders(file, tmp_path, monkeypatch):
    monkeypatch.setenv("FERSWEEP_STORAGE", "sqlite:///own.db")
    entry = create(file)
    monkeypatch.delenv("FERSWEEP_STORAGE")
    assert sweep_ids(f"sqlite:///{tmp_path / 'own.db'}") == [entry.id]
    assert not (tmp_path / ".fersweep" / "sweeps.db").exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert entry.state == "running"


def train(entry):
    """Complete all trials that are left; gives their configurations and the sweep's records."""
    with closing(entry.search()) as search:
        configs = []
        while request := search.next_trial("cpu0"):
            configs.append(request.config)
            search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, make_result()))
        return configs, search.records()


@pytest.fixture
def searched(sweep_file):
    """A finished sweep of two seeds, in a database of its own project, and its chosen trial."""
    parameters = {"model": {"value": "simple_cnn"}, "seed": {"values": [1000, 1002]}}
    entry = create(sweep_file(method="grid", project="faces", parameters=parameters))
    train(entry)
    return entry, chosen(entry, "0")


def test_only_the_seed_differs_from_the_chosen_trial_and_asking_for_more_extends_the_sweep(searched):
    entry, candidate = searched
    made = with_further_seeds(entry, candidate, 2)
    assert (made.id, made.entry.confirms) == (f"confirm-{entry.id}-0", f"{entry.id}/0")
    assert made.file.project == "faces"
    config = parse_trial(candidate.record.config)
    assert train(made)[0] == [config.model_copy(update={"seed": seed}) for seed in (1001, 1003)]
    for seeds in (1, None, 2):
        assert with_further_seeds(entry, candidate, seeds).entry == made.entry
        assert made.state == "finished"
    more = with_further_seeds(entry, candidate, 4)
    assert more.entry == made.entry
    assert [config.seed for config in train(more)[0]] == [1004, 1005]
    assert len(known()) == 2


def test_confirmation_is_completed_after_a_crash_between_its_two_steps(searched):
    entry, candidate = searched
    made = with_further_seeds(entry, candidate, None)
    assert seeds_of(made) == (1001, 1003, 1004, 1005, 1006)
    (sweep_folder(made.id) / "sweep.json").unlink()
    assert confirmed(candidate) is None
    again = with_further_seeds(entry, candidate, 6)
    assert replace(again.entry, created=made.entry.created) == made.entry
    assert seeds_of(again) == (1001, 1003, 1004, 1005, 1006, 1007)


def test_confirmation_of_a_sweep_on_a_server_is_embedded_and_in_the_same_project(searched, file, online):
    entry = create(file, project="else/where")
    assert entry.entry.search == "wandb"
    record = TrialRecord("abcd1234", TrialState.COMPLETE, searched[1].record.config, {}, result=make_result())
    made = with_further_seeds(entry, Candidate(entry.id, record, make_result()), 2)
    assert (made.id, made.entry.search) == (f"confirm-{entry.id}-abcd1234", "optuna")
    sweep = made.file
    assert f"{sweep.entity}/{sweep.project}/{entry.id}" == entry.entry.path
