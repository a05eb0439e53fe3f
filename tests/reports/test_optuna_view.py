"""Importances: those that made the trials good are found, and where there is no answer it says why."""

import dataclasses
from collections.abc import Sequence

import pytest

from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.reports.optuna_view import Importance, coordinates, distributions, importance
from fer_sweep.reports.sources import Axis
from tests.support import reports as made_up


def for_accuracy(records: Sequence[TrialRecord], axes: Sequence[Axis] = made_up.AXES) -> Importance:
    return importance(records, axes, lambda result: result.best_val_acc, maximize=True)


def test_the_learning_rate_decided_the_accuracy_and_the_brakes_the_gap() -> None:
    records = made_up.sweep(trials=300, seed=1)[0].records
    of_accuracy = for_accuracy(records)
    of_gap = importance(records, made_up.AXES, lambda result: result.train_val_gap, maximize=False)
    assert next(iter(of_accuracy.shares)) == "lr"
    assert set(list(of_gap.shares)[:3]) & {"dropout", "label_smoothing", "augment.shift"}
    for answer in (of_accuracy, of_gap):
        assert sum(answer.shares.values()) == pytest.approx(1)
        assert set(answer.shares) == {axis.name for axis in made_up.AXES}
        assert list(answer.shares.values()) == sorted(answer.shares.values(), reverse=True)
    assert for_accuracy(records) == of_accuracy, "the same trials give the same answer"


def test_where_there_is_no_answer_it_says_why() -> None:
    records = made_up.sweep(trials=60)[0].records
    complete = [r for r in records if r.state is TrialState.COMPLETE and r.result is not None]
    alike = [dataclasses.replace(r, result=r.result.model_copy(update={"best_val_acc": 0.5})) for r in complete]
    assert for_accuracy(complete[:5]) == Importance(missing="it takes 20 complete trials, and 5 are complete")
    assert for_accuracy(records, made_up.AXES[:1]).missing == "it takes at least two parameters"
    assert for_accuracy(alike).missing == "all trials have the same result"


def test_parameters_as_optuna_takes_them() -> None:
    axes = (
        Axis("lr", log=True, bounds=(1e-4, 1e-1)),
        Axis("flip", log=False, choices=(True, 1, [1, 2])),
        Axis("own", log=False),
        Axis("gone", log=False),
    )
    values = [{"lr": 0.01, "flip": True, "own": "a"}, {"lr": 0.5, "flip": 1, "own": "b"}, {"flip": [1, 2]}]
    records = [TrialRecord(str(n), TrialState.COMPLETE, {}, parameters) for n, parameters in enumerate(values)]
    known = distributions(axes, records)
    assert set(known) == {"lr", "flip", "own"}
    assert [coordinates(record, known) for record in records] == [
        {"lr": 0.01, "flip": "True", "own": "a"},
        {"flip": "1", "own": "b"},  # 0.5 lies outside
        {"flip": "[1,2]"},
    ]
