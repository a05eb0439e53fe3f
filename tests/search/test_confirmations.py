"""Further seeds of a trial are a sweep of their own: made once, extended on demand, without a seed already searched."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fer_sweep.search.confirmations import FIRST_SEED, confirm, confirmation_of, last_searched, origin_of, seeds_of
from fer_sweep.search.entries import known

from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.search import registry
from tests.support.records import make_result

SWEEP = """\
program: x
method: random
project: faces
metric: {name: best_val_acc, goal: maximize}
run_cap: 2
parameters:
  model: {value: vit}
  dim: {value: 64}
  lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
  augment:
    parameters:
      shift: {min: 0.0, max: 0.1}
"""


def train(entry, count):
    """Complete so many trials; gives their configurations and what remains in the sweep."""
    search = registry.open_search(entry)
    configs = []
    for _ in range(count):
        request = search.next_trial("cpu0")
        configs.append(request.config)
        search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, make_result()))
    records = search.records()
    search.close()
    return configs, records


@pytest.fixture
def searched(tmp_path):
    """A sweep and its chosen trial."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    entry = registry.create(tmp_path / "sweep.yaml")
    return entry, train(entry, 1)[1][0]


def test_only_the_seed_differs_from_the_chosen_trial(searched):
    entry, record = searched
    made = confirm(entry, record, 3, searched={0})
    assert made.id == f"confirm-{entry.id}-0"
    assert made.confirms == f"{entry.id}/0"
    assert registry.load(made).project == "faces"
    configs, _ = train(made, 3)
    assert [config.seed for config in configs] == [FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2]
    chosen = parse_trial(record.config)
    assert all(config.model_copy(update={"seed": chosen.seed}) == chosen for config in configs)


def test_asking_again_finds_it_and_asking_for_more_extends_it(searched):
    entry, record = searched
    made = confirm(entry, record, 2, searched=set())
    train(made, 2)
    search = registry.open_search(made)
    assert search.next_trial("cpu0") is None
    search.close()
    for seeds in (1, None, 2):
        assert confirm(entry, record, seeds, searched=set()) == made
        assert registry.state_of(made) == "finished"
    assert confirm(entry, record, 4, searched=set()) == made
    assert registry.state_of(made) == "running"
    assert seeds_of(made) == (1000, 1001, 1002, 1003)
    assert [config.seed for config in train(made, 2)[0]] == [1002, 1003]
    assert len(known()) == 2


def test_seeds_are_five_by_default_and_none_that_was_searched(searched):
    entry, record = searched
    assert seeds_of(confirm(entry, record, None, searched={1000, 1002})) == (1001, 1003, 1004, 1005, 1006)


def test_confirmation_is_completed_after_a_crash_between_its_two_steps(searched):
    entry, record = searched
    made = confirm(entry, record, 2, searched=set())
    (sweep_folder(made.id) / "sweep.json").unlink()
    assert confirmation_of(entry, record.trial_id) is None
    again = confirm(entry, record, 3, searched=set())
    assert replace(again, created=made.created) == made
    assert seeds_of(again) == (1000, 1001, 1002)


def test_confirmation_is_not_the_sweep_searched_last_and_names_its_origin(searched):
    entry, record = searched
    made = confirm(entry, record, 2, searched=set())
    assert registry.find(None) == made
    assert last_searched() == entry
    assert origin_of(made) == (entry, "0")
    assert origin_of(entry) == (entry, None)
    (sweep_folder(entry.id) / "sweep.json").unlink()
    with pytest.raises(InputError, match=entry.id):
        origin_of(made)
    with pytest.raises(NothingToDo, match="no sweep"):
        last_searched()


def test_confirmation_of_a_sweep_on_a_server_is_embedded_and_in_the_same_project(searched, online):
    assert searched[0].search == "optuna"  # it was created before `online` logged in
    entry = registry.create(Path("sweep.yaml"), project="elsewhere")
    assert entry.search == "wandb"
    record = TrialRecord("abcd1234", TrialState.COMPLETE, searched[1].config, {}, result=make_result())
    made = confirm(entry, record, 2, searched={0})
    assert (made.id, made.search) == (f"confirm-{entry.id}-abcd1234", "optuna")
    sweep = registry.load(made)
    assert f"{sweep.entity}/{sweep.project}/{entry.id}" == entry.path
    assert last_searched() == entry


def test_entry_from_before_there_were_confirmations_is_read(searched):
    path = sweep_folder(searched[0].id) / "sweep.json"
    content = json.loads(path.read_text())
    del content["confirms"]
    path.write_text(json.dumps(content))
    assert known() == [searched[0]]
