"""A sweep that an earlier version of fersweep began, before a field with a default was added, continues unchanged."""

import json
from contextlib import closing

import pytest
from pydantic import create_model
from sqlalchemy import select, update

from fer_sweep.config.trial import parse_trial
from fer_sweep.files import trial_folder, write_atomically
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.store.database import Database
from fer_sweep.store.schema import trials
from fer_sweep.training.checkpoint import Checkpoints
from fer_sweep.training.trial import claim_folder

ADDED = "ema_decay"
"""The field that the earlier version lacks."""


def of_earlier_version(config):
    """The same configuration as a model of the earlier version."""
    fields = {name: (info.annotation, info) for name, info in type(config).model_fields.items() if name != ADDED}
    return create_model("Earlier", **fields)(**config.model_dump(exclude={ADDED}))


def rewrite(storage):
    """Leave every trial's row as the earlier version would have written it."""
    with closing(Database(storage)) as database, database.transaction(write=True) as connection:
        for row in connection.execute(select(trials)).mappings().all():
            text = of_earlier_version(parse_trial(json.loads(row["config"]))).model_dump_json()
            identity = text if row["identity"] == row["config"] else row["identity"]  # of W&B's trials, the run's id
            is_this = trials.c.number == row["number"]
            connection.execute(update(trials).where(is_this).values(config=text, identity=identity))


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
@pytest.mark.parametrize("harness", [("optuna", "sqlite"), ("optuna", "postgres")], indirect=True)
def test_sweep_resumes_its_trial_and_trains_no_configuration_twice(harness, method, complete):
    space = {"model": {"value": "simple_cnn"}, "lr": {"values": [0.1, 0.01, 1e-3]}, "channels": {"values": [8, 16]}}
    sweep = harness.create(method=method, metric={"name": "val_loss"}, parameters=space)
    folder = trial_folder(sweep, "2")
    configs = []
    earlier = harness.agent(sweep, "earlier")
    for outcome in (complete(), complete(), TrialOutcome(TrialState.PREEMPTED)):
        request = earlier.next_trial("cpu/0")
        configs.append(request.config)
        earlier.finish(request.trial_id, outcome)
    rewrite(harness.storage)
    write_atomically(folder / "config.json", of_earlier_version(configs[-1]).model_dump_json())
    Checkpoints(folder, of_earlier_version(configs[-1]), "data").save({"epoch": 3}, {})

    search = harness.agent(sweep, "newer")
    resumed = search.next_trial("cpu/0")
    assert (resumed.trial_id, resumed.attempt, resumed.config) == ("2", 2, configs[-1])
    assert claim_folder(resumed.config, folder) is None
    assert Checkpoints(folder, resumed.config, "data").load().state == {"epoch": 3}
    search.finish(resumed.trial_id, complete())
    while request := search.next_trial("cpu/0"):
        configs.append(request.config)
        search.finish(request.trial_id, complete())
    assert len(search.records()) == len(configs) == len(set(configs)) == 6


@pytest.mark.parametrize("harness", [("wandb", "sqlite"), ("wandb", "postgres")], indirect=True)
def test_run_of_a_configuration_that_an_earlier_version_trained_gets_its_files(harness, settings, complete):
    one = {"model": {"value": "simple_cnn"}, "lr": {"values": [0.1]}}
    sweep = harness.create(**settings(parameters=one))
    search = harness.agent(sweep, "a")
    first = search.next_trial("cpu/0")
    for name in ("config.json", "result.json"):
        write_atomically(trial_folder(sweep, first.trial_id) / name, name)
    search.finish(first.trial_id, complete())
    rewrite(harness.storage)
    again = harness.agent(sweep, "b").next_trial("cpu/0")
    assert again.trial_id != first.trial_id
    assert (trial_folder(sweep, again.trial_id) / "result.json").read_text() == "result.json"
