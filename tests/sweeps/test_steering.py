"""Steering an opened sweep: more trials, another space, a configuration of one's own, a warm start."""

import io
import json
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from fer_sweep.agent.session import work_on
from fer_sweep.errors import ConfigError, InputError, NothingToDo, SweepFileError
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.sweeps import next_steps, open_sweep, steering
from fer_sweep.sweeps.choosing import chosen, with_further_seeds
from fer_sweep.sweeps.steering import Limit
from fer_sweep.worker.slots import Slot
from tests.support.records import make_result
from tests.support.scripted_starter import train_all
from tests.support.searches import OPENED, create, find

MODEL = {"model": {"value": "simple_cnn"}, "data": {"value": "synthetic"}}
GRID = {**MODEL, "channels": {"values": [4, 8]}}
ACCURACY = {"name": "best_val_acc", "goal": "maximize"}


def write(name="sweep.yaml", **changes):
    plain = {"method": "grid", "metric": ACCURACY, "parameters": GRID, **changes}
    Path(name).write_text(json.dumps(plain, indent=1))
    return Path(name)


def train(sweep, *accuracies):
    """Train so many trials, or all that there are; gives their configurations."""
    configs = []
    with closing(sweep.search()) as search:
        while (not accuracies or len(configs) < len(accuracies)) and (request := search.next_trial("cpu0")):
            accuracy = accuracies[len(configs)] if accuracies else 0.5
            search.report(request.trial_id, 1, {"val_acc": accuracy})
            search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, make_result(best_val_acc=accuracy)))
            configs.append(request.config)
    return configs


@pytest.fixture
def finished():
    """A grid of four configurations, finished at its cap of two."""
    sweep = create(write(run_cap=2, parameters={**GRID, "hidden": {"values": [16, 32]}}))
    assert len(train(sweep)) == 2 and sweep.state == "finished"
    return sweep


def test_a_finished_sweep_gets_more_trials_until_all_are_trained(finished):
    for limit in (Limit(2), Limit(1)):
        with pytest.raises(InputError, match="would start no trial: it has 2 trials, and its cap is") as caught:
            steering.resume(finished, count=limit)
        assert "--count +10" in caught.value.hint
    with pytest.raises(InputError, match="is finished") as caught:
        steering.resume(finished)
    assert "--count +10" in caught.value.hint
    assert steering.resume(finished, count=Limit(1, is_more=True)) == ["run_cap: 2 -> 3"]
    assert (finished.state, finished.file.run_cap, finished.planned) == ("running", 3, 3)
    assert "run_cap: 3" in (finished.folder / "sweep.yaml").read_text()
    assert len(train(finished)) == 1
    steering.resume(finished, count=Limit(9))
    assert (len(train(finished)), finished.state) == (1, "finished")
    with pytest.raises(InputError, match="every configuration of sweep") as caught:
        steering.resume(finished, count=Limit(20))
    assert "fersweep edit FILE" in caught.value.hint


@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_a_sweep_at_rest_is_resumed_by_a_higher_limit_but_only_by_that(state):
    sweep = create(write(run_cap=1))
    sweep.set_state(state)
    steering.edit(sweep, write("new.yaml", parameters={**GRID, "channels": {"values": [8]}}), constants={})
    steering.enqueue(sweep, {"channels": 5})
    assert sweep.state == state
    steering.resume(sweep, count=Limit(2))
    assert [config.channels for config in train(sweep)] == [5, 8]


def test_a_cancelled_sweep_cannot_be_steered():
    sweep = create(write())
    sweep.set_state("cancelled")
    for act in (
        lambda: steering.resume(sweep),
        lambda: steering.resume(sweep, count=Limit(9)),
        lambda: steering.edit(sweep, write(run_cap=9), constants={}),
        lambda: steering.enqueue(sweep, {"channels": 3}),
    ):
        with pytest.raises(NothingToDo, match="is cancelled") as caught:
            act()
        assert f"--from {sweep.id}" in caught.value.hint


def test_a_spent_budget_is_named_until_it_is_raised():
    sweep = create(write(), budget_epochs=1)
    assert (len(train(sweep)), sweep.state) == (1, "finished")
    assert next_steps.outlook(sweep) == ["budget: 1 of 1 epochs are trained; no new trial starts"]
    for act in (
        lambda: steering.enqueue(sweep, {"channels": 3}),
        lambda: steering.resume(sweep, count=Limit(5)),
        lambda: steering.resume(sweep, count=Limit(1), budget_epochs=Limit(1)),
    ):
        with pytest.raises(InputError, match="it has trained 1 epoch, and its budget is 1") as caught:
            act()
        assert "--budget-epochs +100" in caught.value.hint
    assert caught.value.hint.endswith("--count +10 --budget-epochs +100")
    assert steering.resume(sweep, budget_epochs=Limit(1, is_more=True)) == ["budget_epochs: 1 -> 2"]
    assert (sweep.remaining().free, len(train(sweep)), sweep.remaining().free) == (1, 1, 0)


def test_an_edit_shows_what_changes_keeps_a_raised_cap_and_lets_a_finished_sweep_run_again(finished):
    write(run_cap=1, parameters={**GRID, "lr": {"value": 0.1}})
    changes = steering.edit(finished, Path("sweep.yaml"), constants={"epochs": 3})
    assert changes == ["hidden: {values: [16, 32]} -> not set", "lr: not set -> 0.1", "epochs: not set -> 3"]
    assert (finished.state, finished.file.run_cap, steering.fitting(finished)) == ("finished", 2, (0, 2))
    assert next_steps.obstacle(finished) == (
        "it has 2 trials, and its cap is 2",
        f"resume {finished.id} --count +10",
    )
    with pytest.raises(NothingToDo, match="changes nothing"):
        steering.edit(finished, Path("sweep.yaml"), constants={"epochs": 3})
    assert steering.edit(finished, Path("sweep.yaml"), constants={"epochs": 4}) == ["epochs: 3 -> 4"]
    write(run_cap=4, parameters={**GRID, "channels": {"values": [8, 4, 16]}, "hidden": {"value": 16}})
    steering.edit(finished, Path("sweep.yaml"), constants={})
    assert (finished.state, steering.fitting(finished)) == ("running", (1, 2)), "one of two had hidden 16"
    assert [config.channels for config in train(finished)] == [8, 16]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_an_edit_is_followed_by_the_agent_that_works_on_the_sweep(method):
    lr = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}
    sweep = create(write(method=method, run_cap=4, parameters={**GRID, "lr": lr}))
    with closing(sweep.search()) as search:
        running = search.next_trial("cpu0")
        steering.edit(sweep, write("new.yaml", method=method, parameters={**GRID, "lr": {"value": 0.5}}), constants={})
        new = [search.next_trial(f"cpu{slot}").config for slot in (1, 2)]
        search.finish(running.trial_id, TrialOutcome(TrialState.COMPLETE, make_result()))
        assert search.next_trial("cpu0") is None
    assert sorted((config.channels, config.lr) for config in new) == [(4, 0.5), (8, 0.5)]


def test_the_view_of_an_agent_follows_a_change_of_the_sweep(tiny_data, played_trials, monkeypatch):
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.0)  # it asks whenever a trial has ended
    parameters = {**MODEL, "data": {"value": tiny_data}, "epochs": {"value": 1}, "channels": {"values": [4, 8, 16]}}
    sweep, shown = create(write(run_cap=2, parameters=parameters)), io.StringIO()

    def raise_cap(trial):
        if trial.trial_id == "0":
            with open_sweep(sweep.id) as other:
                steering.resume(other, count=Limit(3))
        return train_all(trial)

    played_trials.script = raise_cap
    work_on(sweep, [Slot("cpu0", "cpu", 1)], console=Console(file=shown, width=200))
    assert "2/3 trials" in shown.getvalue() and "3/3 trials" in shown.getvalue()


def test_an_edit_refuses_what_cannot_be_trained_or_compared_with_every_problem_and_its_line(finished):
    other = {**MODEL, "data": {"value": "fer2013"}, "lr": {"min": 0.1, "max": 0.2}}
    file = write(method="random", metric={"name": "val_loss"}, parameters=other)
    with pytest.raises(SweepFileError) as caught:
        steering.edit(finished, file, constants={})
    problems = caught.value.problems
    assert [(problem.key, problem.line) for problem in problems] == [
        ("method", 2),
        ("metric", 3),
        ("parameters.data", 10),
    ]
    assert all("--from" in problem.hint for problem in problems)
    with pytest.raises(SweepFileError, match="chanels: no such parameter"):
        steering.edit(finished, write(parameters={**GRID, "chanels": {"value": 3}}), constants={})
    assert finished.file.run_cap == 2


def test_a_configuration_picked_by_hand_is_the_next_trial_with_the_sweeps_constants_and_defaults(finished):
    lines = steering.enqueue(finished, {"channels": "5", "augment": {"shift": 0.2}})
    assert lines == ["from the sweep: data=synthetic, model=simple_cnn", "defaults: hidden=128", "run_cap: 2 -> 3"]
    with pytest.raises(InputError, match="queued already"):
        steering.enqueue(finished, {"channels": 5, "augment.shift": 0.2})
    assert next_steps.outlook(finished) == ["queued next: 1 configuration"]
    (config,) = train(finished)
    assert (config.channels, config.hidden, config.augment.shift) == (5, 128, 0.2)
    assert finished.trials()[2].parameters["hidden"] == 128
    with pytest.raises(InputError, match=f"trial 2 of sweep {finished.id} has this configuration") as caught:
        steering.enqueue(finished, {"channels": 5, "augment.shift": 0.2})
    assert "--set seed=" in caught.value.hint
    with pytest.raises(ConfigError, match="chanels"):
        steering.enqueue(finished, {"chanels": 5})
    with pytest.raises(InputError, match="trains on synthetic, not on fer2013"):
        steering.enqueue(finished, {"data": "fer2013"})


def test_an_ended_trial_is_trained_longer_from_its_weights_as_a_new_trial_and_once(finished):
    trained = finished.trials()[1]  # one epoch, as all that `train` trains
    assert steering.extend(finished, "1", Limit(40)) == [
        "39 epochs after 1, from the weights of epoch 1",
        "run_cap: 2 -> 3",
    ]
    (longer,) = train(finished)
    changed = {"epochs": 39, "weights_from": f"{finished.id}/1"}
    assert longer.model_dump(mode="json") == {**trained.config, **changed}
    assert finished.trials()[2].parameters == {**trained.parameters, **changed}
    for trial, epochs, message in (
        ("1", Limit(40), "trial 2 .* has this"),
        ("1", Limit(1), "has trained 1 epoch already"),
        ("2", Limit(2), "has trained 2 epochs already"),
        ("7", Limit(40), "no trial 7"),
    ):
        with pytest.raises(InputError, match=message):
            steering.extend(finished, trial, epochs)
    assert steering.extend(finished, "2", Limit(5, is_more=True))[0].startswith("5 epochs after 2, ")


def test_a_trial_without_weights_cannot_be_extended():
    sweep = create(write(parameters=MODEL))
    with closing(sweep.search()) as search:
        search.finish(search.next_trial("cpu0").trial_id, TrialOutcome(TrialState.FAILED, reason="no"))
    with pytest.raises(InputError, match="left no weights") as caught:
        steering.extend(sweep, "0", Limit(9))
    assert f"fersweep retry {sweep.id} --trial 0" in caught.value.hint


def test_a_failed_configuration_that_is_enqueued_again_leads_to_retry():
    sweep = create(write(parameters=MODEL))
    with closing(sweep.search()) as search:
        search.finish(search.next_trial("cpu0").trial_id, TrialOutcome(TrialState.FAILED, reason="no"))
    with pytest.raises(InputError) as caught:
        steering.enqueue(sweep, {"lr": 1e-3})
    assert caught.value.hint.endswith(f"fersweep retry {sweep.id} --trial 0")


def test_a_confirmation_is_not_steered(finished):
    confirmation = OPENED.enter_context(with_further_seeds(finished, chosen(finished), 2))
    with pytest.raises(InputError, match="one configuration with further seeds") as caught:
        steering.enqueue(confirmation, {"channels": 3})
    assert f"fersweep confirm {finished.id}" in caught.value.hint


def test_a_sweep_that_a_server_searches_is_resumed_but_not_steered(scripted_wandb):
    sweep = create(write())
    assert sweep.searched_by_server
    for act in (
        lambda: steering.resume(sweep, count=Limit(9)),
        lambda: steering.edit(sweep, write(run_cap=9), constants={}),
        lambda: steering.enqueue(sweep, {"channels": 3}),
        lambda: steering.extend(sweep, "a", Limit(9)),
    ):
        with pytest.raises(InputError, match="a W&B server proposes its trials") as caught:
            act()
        assert "--from" in caught.value.hint
    sweep.set_state("paused")
    assert steering.resume(sweep) == []
    assert sweep.state == "running"


LR = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}


def bayes(**parameters):
    return write("bayes.yaml", method="bayes", parameters={**MODEL, "lr": LR, **parameters})


def test_a_new_sweep_begins_with_the_best_of_earlier_ones_and_learns_from_those_that_are_alike():
    earlier = [create(bayes()), create(bayes(epochs={"value": 2}))]
    best = [train(sweep, 0.2, 0.6, 0.4, 0.1, 0.3) for sweep in earlier]
    notes = []
    for sampler in ("tpe", None):  # TPE cannot learn from trials of another length
        sweep = create(bayes(), sampler=sampler, start_from=[found.id for found in earlier], note=notes.append)
        learnt = {"tpe": 5, None: 10}[sampler]
        assert notes.pop() == (
            f"sweep {sweep.id} begins with 5 configurations of earlier sweeps; its search learns from {learnt} earlier"
            " trials"
        )
    with sweep.ledger() as ledger:
        priors = ledger.priors()
    assert [(found.source, found.is_alike) for found in priors[::5]] == [(earlier[0].id, True), (earlier[1].id, False)]
    assert priors[0].curves["val_acc"] == [0.6]
    order = [1, 2, 4, 0, 3]
    own = [config.model_copy(update={"epochs": 20}) for pair in zip(*best, strict=True) for config in pair]
    wanted = list(dict.fromkeys(own[2 * place + which] for place in order for which in (0, 1)))[:5]
    assert train(sweep, *[0.5] * 6)[:5] == wanted
    assert len(sweep.trials()) == 6 and find(sweep.id).planned is None


def test_a_warm_start_that_fits_nothing_is_refused_and_creates_nothing():
    earlier = create(bayes())
    for trained in (False, True):
        if trained:
            train(earlier, 0.5)
        with pytest.raises(InputError, match="no complete trial there fits"):
            create(bayes(lr={"min": 0.5, "max": 0.6}), start_from=[earlier.id])
    assert find().id == earlier.id
