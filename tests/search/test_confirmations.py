"""Further seeds of a trial are a sweep of their own: made once, extended on demand, without a seed already searched."""

from contextlib import closing
from dataclasses import replace

import pytest

from fer_sweep.config.trial import parse_trial
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.search import registry
from fer_sweep.search.confirmations import confirm, confirmation_of, seeds_of
from fer_sweep.search.entries import known
from tests.support.records import make_result


def train(entry):
    """Complete all trials that are left; gives their configurations and the sweep's records."""
    with closing(registry.open_search(entry)) as search:
        configs = []
        while request := search.next_trial("cpu0"):
            configs.append(request.config)
            search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, make_result()))
        return configs, search.records()


@pytest.fixture
def file(sweep_file, settings):
    shift = {"parameters": {"shift": {"min": 0.0, "max": 0.1}}}
    return sweep_file(run_cap=1, project="faces", parameters={**settings()["parameters"], "augment": shift})


@pytest.fixture
def searched(file):
    """A sweep and its chosen trial."""
    entry = registry.create(file)
    return entry, train(entry)[1][0]


def test_only_the_seed_differs_from_the_chosen_trial_and_asking_for_more_extends_the_sweep(searched):
    entry, record = searched
    made = confirm(entry, record, 2, searched={0, 1000})
    assert (made.id, made.confirms) == (f"confirm-{entry.id}-0", f"{entry.id}/0")
    assert registry.load(made).project == "faces"
    chosen = parse_trial(record.config)
    assert train(made)[0] == [chosen.model_copy(update={"seed": seed}) for seed in (1001, 1002)]
    for seeds in (1, None, 2):
        assert confirm(entry, record, seeds, searched={0, 1000}) == made
        assert registry.state_of(made) == "finished"
    assert confirm(entry, record, 4, searched={0, 1000}) == made
    assert [config.seed for config in train(made)[0]] == [1003, 1004]
    assert len(known()) == 2


def test_confirmation_is_completed_after_a_crash_between_its_two_steps(searched):
    entry, record = searched
    made = confirm(entry, record, None, searched={1000, 1002})
    assert seeds_of(made) == (1001, 1003, 1004, 1005, 1006)
    (sweep_folder(made.id) / "sweep.json").unlink()
    assert confirmation_of(entry, record.trial_id) is None
    again = confirm(entry, record, 6, searched={1000, 1002})
    assert replace(again, created=made.created) == made
    assert seeds_of(again) == (1001, 1003, 1004, 1005, 1006, 1007)


def test_confirmation_of_a_sweep_on_a_server_is_embedded_and_in_the_same_project(searched, file, online):
    entry = registry.create(file, project="elsewhere")
    assert entry.search == "wandb"
    record = TrialRecord("abcd1234", TrialState.COMPLETE, searched[1].config, {}, result=make_result())
    made = confirm(entry, record, 2, searched={0})
    assert (made.id, made.search) == (f"confirm-{entry.id}-abcd1234", "optuna")
    sweep = registry.load(made)
    assert f"{sweep.entity}/{sweep.project}/{entry.id}" == entry.path
