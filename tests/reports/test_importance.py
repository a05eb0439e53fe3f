"""Importances: those that made the trials good are found, and where there is no answer it says why."""

import dataclasses

from fer_sweep.records import TrialResult, TrialState
from fer_sweep.reports.importance import FEWEST_TRIALS, importance
from fer_sweep.reports.optuna_view import coordinates, distributions
from fer_sweep.reports.shown import Axis
from tests.support import reports as made_up


def accuracy(result: TrialResult) -> float:
    return result.best_val_acc


def gap(result: TrialResult) -> float:
    return result.train_val_gap


def test_the_learning_rate_decided_the_accuracy_and_the_brakes_the_gap() -> None:
    sweep, _ = made_up.sweep(trials=300, seed=1)
    of_accuracy = importance(sweep.records, sweep.axes, accuracy, maximize=True)
    of_gap = importance(sweep.records, sweep.axes, gap, maximize=False)
    assert next(iter(of_accuracy.shares)) == "lr"
    assert set(list(of_gap.shares)[:3]) & {"dropout", "label_smoothing", "augment.shift"}
    for answer in (of_accuracy, of_gap):
        assert abs(sum(answer.shares.values()) - 1) < 1e-9
        assert set(answer.shares) == {axis.name for axis in sweep.axes}
        assert list(answer.shares.values()) == sorted(answer.shares.values(), reverse=True)


def test_the_same_trials_give_the_same_answer() -> None:
    sweep, _ = made_up.sweep(trials=60, seed=2)
    first, second = (importance(sweep.records, sweep.axes, accuracy, maximize=True) for _ in range(2))
    assert first == second


def test_too_few_complete_trials() -> None:
    sweep, _ = made_up.sweep(trials=12)
    complete = sum(record.state is TrialState.COMPLETE for record in sweep.records)
    answer = importance(sweep.records, sweep.axes, accuracy, maximize=True)
    assert answer.missing == f"it takes {FEWEST_TRIALS} complete trials, and there are {complete}"
    assert not answer.shares


def test_one_parameter_has_nothing_to_be_compared_with() -> None:
    sweep, _ = made_up.sweep(trials=60)
    assert "two parameters" in importance(sweep.records, sweep.axes[:1], accuracy, maximize=True).missing


def test_trials_that_are_all_alike() -> None:
    sweep, _ = made_up.sweep(trials=60)
    records = [
        dataclasses.replace(r, result=r.result.model_copy(update={"best_val_acc": 0.5}))
        for r in sweep.records
        if r.result
    ]
    assert importance(records, sweep.axes, accuracy, maximize=True).missing == "all trials came to the same"


def test_parameters_as_optuna_takes_them() -> None:
    axes = (
        Axis("lr", log=True, bounds=(1e-4, 1e-1)),
        Axis("flip", log=False, choices=(True, 1, [1, 2])),
        Axis("own", log=False),
        Axis("gone", log=False),
    )
    sweep, _ = made_up.sweep(trials=3)
    values = [{"lr": 0.01, "flip": True, "own": "a"}, {"lr": 0.5, "flip": 1, "own": "b"}, {"flip": [1, 2]}]
    records = [dataclasses.replace(r, parameters=v) for r, v in zip(sweep.records, values, strict=True)]
    known = distributions(axes, records)
    assert set(known) == {"lr", "flip", "own"}
    assert coordinates(records[0], known) == {"lr": 0.01, "flip": "True", "own": "a"}
    assert coordinates(records[1], known) == {"flip": "1", "own": "b"}, "0.5 lies outside"
    assert coordinates(records[2], known) == {"flip": "[1,2]"}
