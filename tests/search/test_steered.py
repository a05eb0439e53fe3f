"""What agents do with a sweep that is steered while they work: another space, a queue, a budget, earlier trials."""

from dataclasses import replace

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.search.embedded import create_sweep
from fer_sweep.store.queue import Picked, Prior
from fer_sweep.store.trials import Ledger
from tests.support.searches import database_at, state_in

COMPLETE = TrialOutcome(TrialState.COMPLETE)
MODEL = {"model": {"value": "simple_cnn"}}
LR = {"distribution": "log_uniform_values", "min": 1e-3, "max": 1e-1}


@pytest.fixture
def steered(storage, settings, agents):
    """Creates a sweep `a`; gives an agent, and what changes its file or its queue in a transaction of another one."""

    def make(limits=None, **changes):
        plain = settings(metric={"name": "val_loss"}, **changes)
        create_sweep(parse_sweep(plain), sweep_id="a", storage=storage, **(limits or {}))

        def steer(*queue, budget=None, **changed):
            with database_at(storage).transaction(write=True) as connection:
                ledger = Ledger(connection, "a")
                ledger.change_settings(parse_sweep({**plain, **changed}), budget_epochs=budget, steered=ledger.count())
                for values in queue:
                    ledger.enqueue(picked(values))

        return agents(storage=storage), steer

    return make


def picked(values):
    return Picked(parse_trial({"model": "simple_cnn", **values}), {"model": "simple_cnn", **values})


def train(search, value=0.5):
    """Take a trial and end it with a loss."""
    request = search.next_trial("cpu/0")
    if request is not None:
        search.report(request.trial_id, 1, {"val_loss": value})
        search.finish(request.trial_id, COMPLETE)
    return request and request.config


def in_study(search):
    """The states and parameters of Optuna's trials."""
    return [(trial.state.name, trial.params) for trial in search._algorithm.proposer._study.get_trials(deepcopy=False)]


def test_a_grid_goes_on_with_the_configurations_that_are_new(steered):
    search, steer = steered(method="grid", parameters={**MODEL, "channels": {"values": [1, 2, 3]}})
    assert [train(search).channels for _ in range(2)] == [1, 2]
    steer({"channels": 9}, method="grid", parameters={**MODEL, "channels": {"values": [4, 2, 1, 9, 5]}})
    rest = []
    while config := train(search):
        rest.append(config.channels)
    assert rest == [9, 4, 5]


def test_tpe_learns_from_the_trials_that_fit_the_new_space_and_repeats_none(steered):
    parameters = {
        **MODEL,
        "lr": LR,
        "dropout": {"distribution": "beta", "a": 2, "b": 2},
        "channels": {"values": [4, 8]},
    }
    search, steer = steered({"sampler": "tpe"}, method="bayes", parameters=parameters)
    configs = [train(search) for _ in range(12)]
    narrower = {**LR, "min": sorted(config.lr for config in configs)[4]}
    wider = {**parameters, "lr": narrower, "channels": {"values": [16, 8, 4]}, "dropout": {"min": 0.0, "max": 0.999}}
    steer({"channels": 8, "lr": 0.02}, {"channels": 64, "lr": 0.02}, method="bayes", parameters=wider)
    assert [train(search).channels for _ in range(2)] == [8, 64], "those picked by hand come first"
    new = [train(search) for _ in range(6)]
    assert len({*configs, *new}) == 18
    assert all(config.lr >= narrower["min"] for config in new)
    told = in_study(search)
    for config, (state, params) in zip(configs, told, strict=False):
        fits = config.lr >= narrower["min"]
        assert state == ("COMPLETE" if fits else "FAIL")
        assert params == ({"lr": config.lr, "channels": config.channels, "dropout": config.dropout} if fits else {})
    assert [state for state, _ in told[12:14]] == ["COMPLETE", "FAIL"]


def test_queue_precedes_proposals_counts_towards_the_cap_and_skips_what_has_a_trial(steered):
    search, steer = steered(run_cap=3)
    first = train(search)
    steer({"lr": first.lr}, {"lr": 0.05}, run_cap=3)
    assert train(search).lr == 0.05
    train(search)
    assert train(search) is None
    assert [record.parameters["lr"] for record in search.records()][1] == 0.05


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_sweep_that_nobody_steers_proposes_the_same_beside_one_that_is(steered, storage, agents, settings, method):
    sampler = {"sampler": "tpe"} if method == "bayes" else {}
    search, steer = steered(sampler, method=method)
    file = parse_sweep(settings(metric={"name": "val_loss"}, method=method))
    create_sweep(file, sweep_id="b", storage=storage, **sampler)
    other = agents("b", storage=storage)
    alike = [(train(search, 1 / k), train(other, 1 / k)) for k in range(1, 13)]
    steer(method=method)  # the same space: located by their values, the trials mean the same
    alike += [(train(search, 1 / k), train(other, 1 / k)) for k in range(1, 4)]
    assert all(one == another for one, another in alike)


def test_no_trial_starts_once_the_budget_is_spent_and_running_ones_finish(steered, storage):
    search, _ = steered({"budget_epochs": 2})
    running = search.next_trial("cpu/0")
    train(search)
    search.report(running.trial_id, 1, {"val_loss": 0.5})
    search.report(running.trial_id, 1, {"val_loss": 0.4})
    assert search.next_trial("cpu/1") is None
    assert state_in(storage, "a") == "running"
    search.finish(running.trial_id, COMPLETE)
    assert search.next_trial("cpu/1") is None
    assert state_in(storage, "a") == "finished"


def test_tpe_learns_from_trials_of_other_sweeps_which_are_none_of_its_own(steered):
    prior = [Prior(picked({"lr": lr}), [lr], 0.3) for lr in (2e-3, 3e-3, 0.5)]
    prior.insert(0, replace(prior[0], is_alike=False))  # on other data, say
    limits = {"priors": prior, "queue": [picked({"lr": 2e-3})], "max_gap": 0.2, "sampler": "tpe"}
    search, _ = steered(limits, method="bayes", parameters={**MODEL, "lr": LR}, run_cap=2)
    assert train(search).lr == 2e-3
    assert train(search) is not None
    assert train(search) is None
    assert len(search.records()) == 2
    told = search._algorithm.proposer._study.get_trials(deepcopy=False)[:2]
    assert [(trial.params["lr"], trial.value) for trial in told] == [(2e-3, 2e-3), (3e-3, 3e-3)]
    assert told[0].constraints["train_val_gap"] == pytest.approx(0.1)


def test_a_trial_that_starts_from_anothers_weights_is_not_compared_with_those_from_scratch(steered):
    rule = {"type": "hyperband", "min_iter": 1, "eta": 10}  # only the best at epoch 1 is not stopped
    search, steer = steered(method="random", parameters={**MODEL, "lr": LR}, early_terminate=rule)
    train(search, 0.5)
    steer(*({"weights_from": "a/0", "epochs": epochs} for epochs in (1, 2)))
    ahead, behind, scratch = (search.next_trial(f"cpu/{slot}") for slot in range(3))
    answers = [search.report(t.trial_id, 1, {"val_loss": v}) for t, v in ((ahead, 0.1), (behind, 0.9), (scratch, 0.4))]
    assert answers == [None, None, None]
