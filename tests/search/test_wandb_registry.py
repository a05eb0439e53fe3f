"""Sweeps created, found, stopped and read on a W&B server, as the registry does it for a person."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from fer_sweep.search.entries import SweepEntry, known
from fer_sweep.search.registry import create, find, open_search, set_state

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import FersweepError, InputError, ServerBusy
from fer_sweep.records import TrialRequest
from fer_sweep.store.database import default_storage
from fer_sweep.store.sweeps import record_sweep
from tests.support.standin.server import StandIn

Settings = Callable[..., Mapping[str, Any]]


def create_from_file(settings: Mapping[str, Any], **options: Any) -> SweepEntry:
    Path("sweep.yaml").write_text(yaml.safe_dump(dict(settings)))
    return create(Path("sweep.yaml"), **options)


def test_a_lost_answer_creates_one_sweep_and_a_refusal_is_retried(online: StandIn, settings: Settings) -> None:
    online.faults.drop("UpsertSweep", after=True)
    with pytest.raises(ServerBusy) as raised:
        create_from_file(settings())
    assert len(online.sweeps) == 1
    assert raised.value.hint is not None and "may have been done" in raised.value.hint
    online.faults.fail("UpsertSweep", status=429, retry_after=0.01)
    create_from_file(settings())
    assert len(online.sweeps) == 2, "what surely was not done is asked again"


def test_a_sweep_whose_recording_was_interrupted_is_found(online: StandIn, settings: Settings) -> None:
    sweep = online.create_sweep({"program": "x", **settings()})
    record_sweep(parse_sweep(settings()), sweep.id, default_storage())  # and then its process was killed
    assert find(f"tester/faces/{sweep.id}").search == "wandb"


def test_a_sweep_is_sent_as_the_stock_client_sends_it(online: StandIn) -> None:
    parameters = {
        "model": {"value": "simple_cnn"},
        "lr": {"min": 1e-5, "max": 0.1},
        "channels": {"min": 8, "max": 16},
        "augment": {"parameters": {"shift": {"min": 0.0, "max": 0.5}}},
        "data": {"value": "008"},
    }
    create_from_file({"method": "random", "parameters": parameters})
    (sweep,) = online.sweeps.values()
    assert sweep.config["program"] == "fersweep"
    assert sweep.config["command"] == ["${env}", "fersweep", "train", "${args}"]
    sent = sweep.config["parameters"]
    assert (sent["lr"]["distribution"], sent["channels"]["distribution"]) == ("uniform", "int_uniform")
    assert sent["augment"]["parameters"]["shift"]["distribution"] == "uniform"
    assert "'008'" in sweep.config_text, "some readers of YAML take it for a number"
    assert sent["lr"]["min"] == 1e-5


@pytest.mark.parametrize(
    "body",
    [
        '{"data": []}',
        '{"data": "x"}',
        '{"data": {"upsertSweep": null}}',
        '{"data": {"upsertSweep": {"sweep": null}}}',
        '{"errors": 5}',
        '{"errors": ["no"]}',
        '{"errors": {"message": "no"}}',
        "[" * 100_000,
    ],
)
def test_unreadable_answers_are_errors_with_a_hint(online: StandIn, settings: Settings, body: str) -> None:
    online.faults.fail("UpsertSweep", status=200, body=body)
    with pytest.raises(FersweepError) as raised:
        create_from_file(settings())
    assert raised.value.hint


def test_a_sweep_may_be_stopped_twice_and_resumed_but_not_paused_once_cancelled(
    online: StandIn, settings: Settings
) -> None:
    entry = create_from_file(settings())
    set_state(entry, "stopped")
    set_state(entry, "stopped")
    assert online.sweeps[entry.id].state == "FINISHED"
    set_state(entry, "running")
    set_state(entry, "cancelled")
    with pytest.raises(InputError, match="cannot become paused"):
        set_state(entry, "paused")


def test_without_a_key_the_trials_of_this_host_are_still_shown(
    online: StandIn, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = create_from_file(settings())
    search = open_search(entry)
    while not isinstance(request := search.next_trial("cpu0"), TrialRequest):
        pass
    search.close()
    monkeypatch.delenv("WANDB_API_KEY")
    unplugged = open_search(entry)
    assert [record.trial_id for record in unplugged.records()] == [request.trial_id]
    with pytest.raises(FersweepError, match="no API key"):
        unplugged.next_trial("cpu0")
    unplugged.close()


def test_a_project_may_have_a_slash_in_its_name(online: StandIn, settings: Settings) -> None:
    entry = create_from_file(settings(), project="faces/2026")
    assert entry.path == f"tester/faces/2026/{entry.id}"
    search = open_search(entry)
    assert search.records() == []
    search.close()


def test_agents_that_find_a_sweep_of_others_by_its_address_at_once_record_it_once(
    online: StandIn, settings: Settings
) -> None:
    sweep = online.create_sweep({"program": "x.py", **settings()}, project="theirs")
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: find(f"{online.url}/tester/theirs/sweeps/{sweep.id}"), range(8)))
    assert {(entry.search, entry.path) for entry in entries} == {("wandb", f"tester/theirs/{sweep.id}")}
    assert len(known()) == 1
