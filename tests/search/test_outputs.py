"""What a sweep in turns follows beside its metric: the limit on the gap, a second objective, and earlier sweeps."""

import math

import pytest

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.search.embedded import create_sweep
from fer_sweep.search.outputs import earlier_observations, outputs_of
from fer_sweep.search.turns import can_take_turns
from fer_sweep.store.database import default_storage
from fer_sweep.store.queue import Picked, Prior
from fer_sweep.store.trials import Ledger
from tests.search.conftest import Clock
from tests.support.records import make_result
from tests.support.searches import database_at

EPOCHS = 6
LR = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0}
FIXED = {"model": {"value": "simple_cnn"}, "epochs": {"value": EPOCHS}}
RANGES = {**FIXED, "lr": LR, "dropout": {"min": 0.0, "max": 0.6}}
ACCURACY = {"name": "best_val_acc", "goal": "maximize"}
GAP = {"name": "train_val_gap", "goal": "minimize"}
TWO = {"method": "custom", "metric": None, "metrics": [ACCURACY, GAP], "scheduler": {"engine": "optuna"}}


def sweep_of(**changes):
    plain = {"method": "bayes", "metric": ACCURACY, "run_cap": 14, "parameters": {**FIXED, "lr": LR}, **changes}
    return parse_sweep({key: value for key, value in plain.items() if value is not None})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def opened(own_folders, agents, clock):
    """Creates a sweep and gives an agent of it."""

    def make(sweep_id="a", beginning=None, **changes):
        create_sweep(sweep_of(**changes), sweep_id=sweep_id, storage=default_storage(), **(beginning or {}))
        return agents(sweep_id, clock=clock)

    return make


def at(lr, epoch, dropout=0.0):
    """Accuracy and gap: both rise with the learning rate and with time; dropout makes both worse."""
    risen = (math.log10(lr) + 4) / 4 * (1 - math.exp(-epoch / 2))
    return 0.3 + 0.4 * risen - 0.2 * dropout, 0.4 * risen + 0.2 * dropout


def work(search, clock):
    """Train what the search gives to its end; gives every trial's epochs, and its accuracy and gap at the last one."""
    epochs, ends = {}, {}
    while request := search.next_trial("cpu/0"):
        trial, state, stop = request.trial_id, TrialState.COMPLETE, None
        ends[trial] = at(request.config.lr, EPOCHS, request.config.dropout)
        while epochs.get(trial, 0) < EPOCHS and stop is None:
            epoch = epochs[trial] = epochs.get(trial, 0) + 1
            clock.now += 10.0  # a turn's length depends on how long epochs and pauses take
            accuracy, gap = at(request.config.lr, epoch, request.config.dropout)
            metrics = {"val_acc": accuracy, "best_val_acc": accuracy, "train_val_gap": gap}
            stop = search.report(trial, epoch, metrics)
        if stop is not None:
            assert stop is StopReason.PAUSED
            state = TrialState.PAUSED
        done = {"epochs": epochs[trial], "best_epoch": epochs[trial]}
        result = make_result(best_val_acc=accuracy, train_val_gap=gap, **done)
        search.finish(trial, TrialOutcome(state, result))
    return epochs, ends


def test_sweep_with_a_limit_ends_with_its_best_trial_within_it_complete(opened, clock):
    epochs, ends = work(opened(beginning={"max_gap": 0.2}, parameters=RANGES), clock)
    free = work(opened("b", parameters=RANGES), clock)
    whole = [[ends[trial] for trial, n in epochs.items() if n == EPOCHS] for epochs, ends in ((epochs, ends), free)]
    within = [accuracy for accuracy, gap in whole[0] if gap <= 0.2]
    assert len(epochs) == 14
    assert max(within) == max(accuracy for accuracy, gap in ends.values() if gap <= 0.2)
    assert max(within) > 0.42  # 0.5 has a gap of 0.2 without dropout
    beyond = [sum(gap > 0.25 for _, gap in ended) for ended in whole]
    assert beyond[0] < beyond[1]


def test_sweep_for_two_objectives_is_trained_in_turns_and_finds_both_ends_of_the_front(opened, clock):
    epochs, ends = work(opened(**TWO, parameters=RANGES), clock)
    assert len(epochs) == 14
    assert sum(epochs.values()) < 0.8 * 14 * EPOCHS
    gaps = [ends[trial][1] for trial, n in epochs.items() if n == EPOCHS]
    assert min(gaps) < 0.1
    assert max(gaps) > 0.3


def test_which_sweeps_take_turns():
    for changes, limit, expected in (
        ({}, None, ["best_val_acc"]),
        ({}, 0.1, ["best_val_acc", "train_val_gap"]),
        (TWO, None, ["best_val_acc", "train_val_gap"]),
        ({**TWO, "metrics": [GAP, ACCURACY]}, None, ["best_val_acc", "train_val_gap"]),
        ({"metric": GAP}, None, []),
        ({**TWO, "metrics": [ACCURACY, {"name": "parameters"}]}, None, []),
        ({**TWO, "metrics": [ACCURACY, GAP, {"name": "val_loss"}]}, None, []),
    ):
        sweep = sweep_of(**changes)
        assert list(outputs_of(sweep, max_gap=limit)) == expected
        assert can_take_turns(sweep, max_gap=limit) == bool(expected)
    assert not can_take_turns(sweep_of(**{**TWO, "scheduler": {"engine": "optuna", "source": "own.py"}}), max_gap=None)


def prior(lr, curve, source="earlier", **changes):
    config = parse_trial({"model": "simple_cnn", "epochs": 3, "lr": lr, **changes})
    gaps = [0.1 * epoch for epoch in range(len(curve))]
    curves = {"best_val_acc": curve, "val_acc": curve, "train_val_gap": gaps} if curve else {}
    picked = Picked(config, {"model": "simple_cnn", "lr": lr, **changes})
    return Prior(picked, [0.5], 0.1, source=source, is_alike=False, curves=curves)


def test_trials_of_earlier_sweeps_have_the_values_that_this_one_fixes_and_the_gap_of_their_best_epoch():
    sweep = sweep_of()
    outputs = outputs_of(sweep, max_gap=0.3)
    priors = [
        prior(0.1, [0.4, 0.5, 0.45], hidden=64),
        prior(0.2, [], source="b"),
        prior(5.0, [0.4]),
        prior(0.3, [0.6]),
    ]
    found = earlier_observations(priors, Space.from_sweep(sweep), outputs, ["best_val_acc"])
    assert [seen.sweep for seen in found] == [1, 2, 1]  # the third is outside the space
    assert found[0].values == {"model": "simple_cnn", "epochs": EPOCHS, "lr": 0.1}
    assert (found[0].curve, found[0].second) == ([0.4, 0.5, 0.45], [0.0, 0.1, 0.1])
    assert (len(found[1].curve), found[1].curve[-1], found[1].second[-1]) == (3, 0.5, 0.1)
    assert all(map(math.isnan, found[1].curve[:-1]))


def test_trials_of_earlier_sweeps_are_stored_with_their_curves_and_searched_by(opened):
    priors = [prior(10 ** (-4 + k / 5), [0.1 + at(10 ** (-k / 5), n)[0] for n in (2, 4, 6)]) for k in range(20)]
    queue = [Picked(parse_trial({"model": "simple_cnn", "epochs": EPOCHS, "lr": 0.01}), {"lr": 0.01})]
    search = opened(beginning={"priors": priors, "queue": queue})
    with database_at().transaction(write=False) as connection:
        assert list(Ledger(connection, "a").priors()) == priors
    first = search.next_trial("cpu/0")
    assert first.config.lr == 0.01
    for epoch in (1, 2):
        stop = search.report(first.trial_id, epoch, {"val_acc": 0.3, "best_val_acc": 0.3, "train_val_gap": 0.1})
    assert stop is StopReason.PAUSED
    search.finish(first.trial_id, TrialOutcome(TrialState.PAUSED, make_result()))
    # There, the lowest learning rate was best.
    assert search.next_trial("cpu/0").config.lr < 1e-3
