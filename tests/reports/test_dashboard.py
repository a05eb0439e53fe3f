"""The mirror that optuna-dashboard shows: what a sweep's records become there, and how they are served."""

import dataclasses
import queue
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from fer_sweep.config.sweep_file import Metric
from fer_sweep.errors import InputError
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.reports import dashboard
from fer_sweep.reports.dashboard import Mirror
from fer_sweep.sweeps import Sweep
from tests.reports.test_sources import Complete, finish, made
from tests.support import reports as made_up
from tests.support.records import make_result

ACCURACY = Metric(name="best_val_acc", goal="maximize")
GAP = Metric(name="train_val_gap", goal="minimize")
SWEEP, HISTORIES = made_up.sweep(trials=30, seed=1)


def study_of(mirror: Mirror) -> optuna.Study:
    return optuna.load_study(study_name="made up", storage=mirror.storage)


def test_every_trial_with_its_state_values_and_curve() -> None:
    one, two = Mirror("made up", [ACCURACY], SWEEP.axes), Mirror("made up", [ACCURACY, GAP], SWEEP.axes)
    for mirror in (one, two):
        mirror.update(SWEEP.records, HISTORIES.__getitem__)
    assert study_of(one).metric_names == ["best_val_acc"]
    assert [direction.name for direction in study_of(two).directions] == ["MAXIMIZE", "MINIMIZE"]
    states = {"complete": OptunaState.COMPLETE, "pruned": OptunaState.PRUNED, "running": OptunaState.RUNNING}
    for record, trial, of_two in zip(SWEEP.records, study_of(one).trials, study_of(two).trials, strict=True):
        assert trial.state is states[record.state]
        assert trial.params["lr"] == record.parameters["lr"]
        assert trial.user_attrs["trial"] == record.trial_id and trial.user_attrs["model"] == "resnet18"
        assert not of_two.intermediate_values, "Optuna has none for several objectives"
        if record.result is not None:
            assert of_two.values == [record.result.best_val_acc, record.result.train_val_gap]
        if record.state is TrialState.COMPLETE:
            assert [trial.value] == of_two.values[:1] and len(trial.intermediate_values) == made_up.EPOCHS
            times = [datetime.fromtimestamp(moment or 0) for moment in (record.started_at, record.ended_at)]
            assert [trial.datetime_start, trial.datetime_complete] == times


def test_it_follows_a_trial_to_its_end() -> None:
    mirror = Mirror("made up", [ACCURACY], SWEEP.axes)
    *_, running = SWEEP.records
    diverged = TrialRecord("x", TrialState.COMPLETE, {}, {}, result=make_result(best_epoch=0, best_val_acc=0.0))
    mirror.update([running, diverged], lambda trial: HISTORIES.get(trial, [])[:2])
    assert len(study_of(mirror).trials[0].intermediate_values) == 2
    done = dataclasses.replace(running, state=TrialState.PRUNED, result=make_result())
    mirror.update([done, diverged], lambda trial: HISTORIES[trial][:3])
    mirror.update([done, diverged], lambda trial: pytest.fail("one that has ended is read again"))
    trial, failed = study_of(mirror).get_trials()
    assert trial.state is OptunaState.PRUNED and len(trial.intermediate_values) == 3
    assert failed.state is OptunaState.FAIL, "Optuna has no complete trial without a value"


@pytest.fixture
def entry(tmp_path: Path, complete: Complete) -> Sweep:
    """A sweep with one trial that is done."""
    return made(tmp_path, [complete(best_val_acc=0.5)])


@pytest.fixture
def address(entry: Sweep, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the dashboard of the sweep answers."""
    servers: list[Any] = []
    make = dashboard.make_server
    monkeypatch.setattr(dashboard, "make_server", lambda *a, **k: servers.append(make(*a, **k)) or servers[-1])
    ready: queue.Queue[str] = queue.Queue()
    options = {"port": 0, "every_s": 0.05, "on_ready": ready.put}
    thread = threading.Thread(target=dashboard.serve, args=(entry,), kwargs=options)
    thread.start()
    yield ready.get(timeout=20)
    servers[0].shutdown()
    thread.join(10)
    assert not thread.is_alive()


def test_it_follows_the_sweep_and_changes_nothing(address: str, entry: Sweep, complete: Complete) -> None:
    assert address.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=address) as client:
        assert client.get("/dashboard/").status_code == 200
        (study,) = client.get("/api/studies").json()["study_summaries"]
        assert entry.id in study["study_name"]
        finish(entry, [complete(best_val_acc=0.7)])
        for _ in range(200):  # the dashboard itself looks again after two seconds
            trials = client.get(f"/api/studies/{study['study_id']}?after=0").json()["trials"]
            if [trial["state"] for trial in trials] == ["Complete"] * 2:
                break
            threading.Event().wait(0.05)
        assert [trial["values"] for trial in trials] == [[0.5], [0.7]]
        assert client.delete(f"/api/studies/{study['study_id']}").status_code == 405
        assert client.post("/api/studies", json={"study_name": "x", "directions": ["minimize"]}).status_code == 405
        assert client.get("/api/studies", headers={"Host": "evil.example"}).status_code == 403
        assert len(client.get("/api/studies").json()["study_summaries"]) == 1
    port = httpx.URL(address).port
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}") as raised:
        dashboard.serve(entry, port=port or 0, on_ready=print)
    assert raised.value.hint == "use --port 0 for a free port"
