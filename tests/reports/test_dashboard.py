"""The mirror that optuna-dashboard shows: what a sweep's records become there, and how they are served."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from fer_sweep.config.sweep_file import Metric
from fer_sweep.errors import InputError
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.reports import dashboard
from fer_sweep.reports.dashboard import Mirror
from fer_sweep.search.entries import SweepEntry
from tests.reports.test_sources import finish, made
from tests.support import reports as made_up
from tests.support.records import make_result

ACCURACY = Metric(name="best_val_acc", goal="maximize")
SWEEP, HISTORIES = made_up.sweep(trials=30, seed=1)


@pytest.fixture
def mirror() -> Mirror:
    return Mirror("made up", [ACCURACY], SWEEP.axes)


def study_of(mirror: Mirror) -> optuna.Study:
    return optuna.load_study(study_name="made up", storage=mirror.storage)


def test_every_trial_with_its_state_values_and_curve(mirror: Mirror) -> None:
    mirror.update(SWEEP.records, HISTORIES.__getitem__)
    study = study_of(mirror)
    assert study.metric_names == ["best_val_acc"]
    states = {"complete": OptunaState.COMPLETE, "pruned": OptunaState.PRUNED, "running": OptunaState.RUNNING}
    for record, trial in zip(SWEEP.records, study.get_trials(), strict=True):
        assert trial.state is states[record.state]
        assert trial.params["lr"] == record.parameters["lr"]
        assert trial.user_attrs["trial"] == record.trial_id and trial.user_attrs["model"] == "resnet18"
        if record.state is TrialState.COMPLETE:
            assert record.result is not None and trial.value == record.result.best_val_acc
            assert len(trial.intermediate_values) == made_up.EPOCHS
            times = [datetime.fromtimestamp(moment or 0) for moment in (record.started_at, record.ended_at)]
            assert [trial.datetime_start, trial.datetime_complete] == times


def test_several_objectives_have_values_and_no_curve() -> None:
    mirror = Mirror("made up", [ACCURACY, Metric(name="train_val_gap", goal="minimize")], SWEEP.axes)
    mirror.update(SWEEP.records, HISTORIES.__getitem__)
    study = study_of(mirror)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for record, trial in zip(SWEEP.records, study.get_trials(), strict=True):
        assert not trial.intermediate_values
        if record.result is not None:
            assert trial.values == [record.result.best_val_acc, record.result.train_val_gap]


def test_it_follows_a_trial_to_its_end(mirror: Mirror) -> None:
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
def entry(tmp_path: Path, complete: Callable[..., TrialOutcome]) -> SweepEntry:
    """A sweep with one trial that is done."""
    return made(tmp_path, [complete(best_val_acc=0.5)])


@pytest.fixture
def address(entry: SweepEntry, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
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


def test_the_dashboard_follows_changes_nothing_and_answers_this_machine_alone(
    address: str, entry: SweepEntry, complete: Callable[..., TrialOutcome]
) -> None:
    assert address.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=address) as client:
        assert client.get("/dashboard/").status_code == 200
        (study,) = client.get("/api/studies").json()["study_summaries"]
        assert entry.id in study["study_name"]
        finish(entry, [complete(best_val_acc=0.7)])
        for _ in range(200):  # the dashboard itself looks again after two seconds
            trials = client.get(f"/api/studies/{study['study_id']}?after=0").json()["trials"]
            if len(trials) == 2:
                break
            threading.Event().wait(0.05)
        assert [(trial["state"], trial["values"]) for trial in trials] == [("Complete", [0.5]), ("Complete", [0.7])]
        assert client.delete(f"/api/studies/{study['study_id']}").status_code == 405
        assert client.post("/api/studies", json={"study_name": "x", "directions": ["minimize"]}).status_code == 405
        assert client.get("/api/studies", headers={"Host": "evil.example"}).status_code == 403
        assert len(client.get("/api/studies").json()["study_summaries"]) == 1
    port = httpx.URL(address).port
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}") as raised:
        dashboard.serve(entry, port=port or 0)
    assert raised.value.hint == "--port 0 takes a free one"
