"""Further seeds are a sweep of their own: made once, made longer on demand, never with a seed that was searched."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import InputError, NothingToDo
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.search import registry
from fer_sweep.search.confirmations import FIRST_SEED, confirm, confirmation_of, last_searched, origin_of, seeds_of
from fer_sweep.search.entries import SweepEntry, known
from tests.support.records import make_result
from tests.support.standin.server import StandIn

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


@pytest.fixture
def searched(tmp_path: Path) -> tuple[SweepEntry, TrialRecord]:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    entry = registry.create(tmp_path / "sweep.yaml")
    search = registry.open_search(entry)
    request = search.next_trial("cpu0")
    search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, make_result()))
    (record,) = search.records()
    search.close()
    return entry, record


def test_only_the_seed_differs_from_the_chosen_trial(searched: tuple[SweepEntry, TrialRecord]) -> None:
    entry, record = searched
    made = confirm(entry, record, 3, searched={0})
    assert made.id == f"confirm-{entry.id}-0"
    assert made.confirms == f"{entry.id}/0"
    search = registry.open_search(made)
    requests = [search.next_trial("cpu0") for _ in range(3)]
    assert search.next_trial("cpu0") is None
    search.close()
    configs = [request.config for request in requests]
    assert [config.seed for config in configs] == [FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2]
    chosen = parse_trial(record.config)
    assert all(config.model_copy(update={"seed": chosen.seed}) == chosen for config in configs)
    assert registry.load(made).project == "faces"


def test_asking_again_finds_it_and_asking_for_more_makes_it_longer(searched: tuple[SweepEntry, TrialRecord]) -> None:
    entry, record = searched
    made = confirm(entry, record, 2, searched=set())
    search = registry.open_search(made)
    for _ in range(2):
        request = search.next_trial("cpu0")
        search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, make_result()))
    assert search.next_trial("cpu0") is None
    search.close()
    assert registry.state_of(made) == "finished"

    assert confirm(entry, record, 1, searched=set()) == made
    assert confirm(entry, record, None, searched=set()) == made
    assert confirm(entry, record, 2, searched=set()) == made
    assert registry.state_of(made) == "finished"
    assert confirm(entry, record, 4, searched=set()) == made
    assert registry.state_of(made) == "running"
    assert seeds_of(made) == (1000, 1001, 1002, 1003)
    search = registry.open_search(made)
    assert [search.next_trial("cpu0").config.seed for _ in range(2)] == [1002, 1003]
    search.close()
    assert len(known()) == 2


def test_five_seeds_unless_told_otherwise(searched: tuple[SweepEntry, TrialRecord]) -> None:
    entry, record = searched
    assert len(seeds_of(confirm(entry, record, None, searched=set()))) == 5


def test_a_seed_that_was_searched_confirms_nothing(searched: tuple[SweepEntry, TrialRecord]) -> None:
    entry, record = searched
    assert seeds_of(confirm(entry, record, 3, searched={1000, 1002})) == (1001, 1003, 1004)


def test_it_is_made_whole_after_a_crash_between_its_two_steps(searched: tuple[SweepEntry, TrialRecord]) -> None:
    entry, record = searched
    made = confirm(entry, record, 2, searched=set())
    (sweep_folder(made.id) / "sweep.json").unlink()
    assert confirmation_of(entry, record.trial_id) is None
    again = confirm(entry, record, 3, searched=set())
    assert replace(again, created=made.created) == made
    assert seeds_of(again) == (1000, 1001, 1002)


def test_it_is_not_the_sweep_searched_last(searched: tuple[SweepEntry, TrialRecord]) -> None:
    entry, record = searched
    made = confirm(entry, record, 2, searched=set())
    assert registry.find(None) == made
    assert last_searched() == entry
    assert origin_of(made) == (entry, "0")
    assert origin_of(entry) == (entry, None)


def test_without_a_sweep_there_is_none_searched_last() -> None:
    with pytest.raises(NothingToDo, match="no sweep"):
        last_searched()


def test_one_whose_origin_is_gone_says_so(searched: tuple[SweepEntry, TrialRecord]) -> None:
    entry, record = searched
    made = confirm(entry, record, 2, searched=set())
    (sweep_folder(entry.id) / "sweep.json").unlink()
    with pytest.raises(InputError, match=entry.id):
        origin_of(made)


def test_one_of_a_sweep_that_a_server_searched_is_embedded_in_the_same_project(
    online: StandIn, tmp_path: Path, searched: tuple[SweepEntry, TrialRecord]
) -> None:
    entry = registry.create(tmp_path / "sweep.yaml", project="elsewhere")
    assert entry.search == "wandb"
    record = TrialRecord("abcd1234", TrialState.COMPLETE, searched[1].config, {}, result=make_result())
    made = confirm(entry, record, 2, searched={0})
    assert (made.id, made.search) == (f"confirm-{entry.id}-abcd1234", "optuna")
    sweep = registry.load(made)
    assert f"{sweep.entity}/{sweep.project}/{entry.id}" == entry.path
    assert last_searched() == entry


def test_entries_written_before_there_were_confirmations_are_read(searched: tuple[SweepEntry, TrialRecord]) -> None:
    path = sweep_folder(searched[0].id) / "sweep.json"
    content = json.loads(path.read_text())
    del content["confirms"]
    path.write_text(json.dumps(content))
    assert known() == [searched[0]]
