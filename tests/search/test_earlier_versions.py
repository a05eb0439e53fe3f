"""A sweep that an earlier version of fersweep began, before a field with a default was added, continues unchanged."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from pydantic import create_model

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.files import trial_folder, write_atomically
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.config_index import ConfigIndex
from fer_sweep.store.database import Database
from fer_sweep.store.sweeps import create_sweep, record_sweep
from fer_sweep.store.trials import Lease, Ledger
from fer_sweep.training.checkpoint import Checkpoints
from fer_sweep.training.trial import claim_folder
from tests.search.conftest import Harness

ADDED = "ema_decay"
"""The field that the earlier version lacks."""
FINITE = {
    "model": {"value": "simple_cnn"},
    "lr": {"values": [0.1, 0.01, 0.001]},
    "batch_size": {"values": [32, 64]},
}
PREEMPTED = TrialOutcome(TrialState.PREEMPTED)


def of_earlier_version(config: TrialConfig) -> Any:
    """The same configuration as a model of the earlier version."""
    fields = {name: (info.annotation, info) for name, info in type(config).model_fields.items() if name != ADDED}
    return create_model("Earlier", **fields)(**config.model_dump(exclude={ADDED}))  # type: ignore[call-overload]


def rewrite(storage: str) -> None:
    """Leave every trial's row as the earlier version would have written it."""
    with closing(Database(storage)) as database, database.transaction(write=True) as connection:
        for row in connection.rows("SELECT number, config, identity FROM fersweep_trials"):
            text = of_earlier_version(parse_trial(json.loads(row["config"]))).model_dump_json()
            assert ADDED not in text
            identity = text if row["identity"] == row["config"] else row["identity"]  # of W&B's trials, the run's id
            connection.change(
                "UPDATE fersweep_trials SET config = ?, identity = ? WHERE number = ?", [text, identity, row["number"]]
            )


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_sweep_resumes_its_trial_and_trains_no_configuration_twice(
    storage: str, method: str, complete: Callable[..., TrialOutcome]
) -> None:
    sweep = parse_sweep({"method": method, "metric": {"name": "val_loss"}, "parameters": FINITE})
    create_sweep(sweep, sweep_id="a", storage=storage)
    folder = trial_folder("a", "2")
    configs: list[TrialConfig] = []
    with closing(OptunaSearch("a", storage=storage)) as earlier:
        for outcome in (complete(), complete(), PREEMPTED):
            request = earlier.next_trial("cpu/0")
            assert isinstance(request, TrialRequest)
            configs.append(request.config)
            earlier.finish(request.trial_id, outcome)
    rewrite(storage)
    write_atomically(folder / "config.json", of_earlier_version(configs[-1]).model_dump_json())
    Checkpoints(folder, of_earlier_version(configs[-1]), "data").save({"epoch": 3})

    with closing(OptunaSearch("a", storage=storage)) as search:
        resumed = search.next_trial("cpu/0")
        assert isinstance(resumed, TrialRequest)
        assert (resumed.trial_id, resumed.attempt, resumed.config) == ("2", 2, configs[-1])
        assert claim_folder(resumed.config, folder) is None
        assert Checkpoints(folder, resumed.config, "data").load() == {"epoch": 3}
        search.finish(resumed.trial_id, complete())
        while isinstance(request := search.next_trial("cpu/0"), TrialRequest):
            configs.append(request.config)
            search.finish(request.trial_id, complete())
        assert len(search.records()) == 6
    assert len(configs) == len(set(configs)) == 6


def test_index_finds_every_trial_of_a_configuration_and_skips_rows_of_a_newer_version(storage: str) -> None:
    config = parse_trial({"model": "simple_cnn", "lr": 0.1})
    other = parse_trial({"model": "simple_cnn", "lr": 0.2})
    newer = json.dumps({**config.model_dump(), "added": 0.5})
    texts = [of_earlier_version(config).model_dump_json(), newer, other.model_dump_json(), config.model_dump_json()]
    record_sweep(parse_sweep({"method": "random", "parameters": FINITE}), "a", storage)
    with closing(Database(storage)) as database, database.transaction(write=True) as connection:
        ledger, index = Ledger(connection, "a"), ConfigIndex()
        for number, text in enumerate(texts):
            lease = Lease("owner", "cpu/0", 1, 0.0)
            ledger.add(number, identity=str(number), config=text, parameters={}, memo=None, lease=lease, now=0.0)
        assert [row["number"] for row in index.find(config, ledger)] == [0, 3]
        assert [row["number"] for row in index.find(other, ledger)] == [2]
        assert index.find(parse_trial({"model": "vit"}), ledger) == []


def test_run_of_a_configuration_that_an_earlier_version_trained_gets_its_files(
    storage: str, harness_on: Callable[[str, str], Harness], complete: Callable[..., TrialOutcome]
) -> None:
    harness = harness_on("wandb", storage)
    one = {"model": {"value": "simple_cnn"}, "lr": {"values": [0.1]}}
    sweep = harness.create(method="random", metric={"name": "best_val_acc"}, parameters=one)
    search = harness.agent(sweep, "a")
    first = search.next_trial("cpu/0")
    assert isinstance(first, TrialRequest)
    for name in ("config.json", "result.json"):
        write_atomically(trial_folder(sweep, first.trial_id) / name, name)
    search.finish(first.trial_id, complete())
    rewrite(storage)
    again = harness.agent(sweep, "b").next_trial("cpu/0")
    assert isinstance(again, TrialRequest)
    assert again.trial_id != first.trial_id
    assert (trial_folder(sweep, again.trial_id) / "result.json").read_text() == "result.json"
