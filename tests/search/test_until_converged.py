"""Sweeps that finish once going on is not worth it."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from fer_sweep.errors import InputError
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.search.convergence import LEAST_TRIALS
from fer_sweep.sweeps import next_steps, steering
from fer_sweep.sweeps.expectation import expectation
from tests.support.records import make_result
from tests.support.searches import create

EPOCHS = 4
CAP = 60
PARAMETERS = {
    "model": {"value": "simple_cnn"},
    "data": {"value": "synthetic"},
    "epochs": {"value": EPOCHS},
    "dropout": {"min": 0.0, "max": 0.5},
}


def make(method, metric="best_val_acc", **options):
    goal = "minimize" if metric == "val_loss" else "maximize"
    plain = {"method": method, "metric": {"name": metric, "goal": goal}, "parameters": PARAMETERS, "run_cap": CAP}
    Path("sweep.yaml").write_text(json.dumps(plain))
    return create(Path("sweep.yaml"), **options)


def train(sweep, most=CAP):
    """Train the trials that the sweep hands out, with an accuracy that hardly depends on the dropout; at most so many
    attempts."""
    attempts, done = 0, {}
    with closing(sweep.search()) as search:
        while attempts < most * EPOCHS and (request := search.next_trial("cpu0")):
            attempts += 1
            height, trial = 0.6 - 0.01 * request.config.dropout, request.trial_id
            reason, accuracy = None, 0.0
            while reason is None and done.get(trial, 0) < EPOCHS:
                epoch = done[trial] = done.get(trial, 0) + 1
                accuracy = height * (1 - 0.5**epoch)
                reason = search.report(trial, epoch, {"epoch": epoch, "val_acc": accuracy, "best_val_acc": accuracy})
            state = TrialState.PAUSED if reason is StopReason.PAUSED else TrialState.COMPLETE
            result = make_result(best_val_acc=accuracy, epochs=done[trial], confusion_matrix=((500,) * 7,) * 7)
            search.finish(trial, TrialOutcome(state, result))
    return done


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_sweep_finishes_before_its_cap_and_its_best_trial_is_whole(method):
    sweep = make(method, until_converged=True)
    done = train(sweep)
    assert sweep.state == "finished" and LEAST_TRIALS <= len(done) < CAP
    records = sweep.trials()
    assert {record.state for record in records} <= {TrialState.COMPLETE, TrialState.PRUNED}
    best = max(records, key=lambda record: record.result.best_val_acc)
    assert best.result.epochs == EPOCHS
    assert "going on is not worth it: with as many epochs again" in expectation(sweep, records)


def test_resuming_a_finished_one_trains_on_without_the_rule():
    sweep = make("random", until_converged=True)
    trained = len(train(sweep))
    assert next_steps.obstacle(sweep) == ("going on is not worth it", f"resume {sweep.id}")
    assert steering.resume(sweep) == ["until_converged: true -> false"]
    assert sweep.state == "running"
    assert len(train(sweep)) == CAP - trained


def test_sweep_without_the_rule_goes_to_its_cap():
    assert len(train(make("random"))) == CAP


def test_rule_needs_an_accuracy_as_the_objective():
    with pytest.raises(InputError, match="--until-converged needs `metric:`") as caught:
        make("random", metric="val_loss", until_converged=True)
    assert "--budget-epochs" in caught.value.hint


def test_nothing_is_said_of_a_sweep_that_has_just_begun_or_cannot_be_predicted():
    sweep = make("random")
    assert expectation(sweep, sweep.trials()) is None
    other = make("random", metric="macro_f1")
    train(other, most=2)
    assert "takes one objective that is reported each epoch" in expectation(other, other.trials())
