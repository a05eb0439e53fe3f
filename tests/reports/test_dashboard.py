"""The mirror that optuna-dashboard shows: what a sweep's records become there, and how they are served."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import optuna
import pytest
from fer_sweep.search.entries import SweepEntry
from optuna.trial import TrialState as OptunaState

from fer_sweep.config.sweep_file import Metric
from fer_sweep.errors import InputError
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.reports import dashboard
from fer_sweep.reports.dashboard import Mirror
from fer_sweep.search import registry
from tests.support import reports as made_up
from tests.support.scripted_search import TINY

ACCURACY = Metric(name="best_val_acc", goal="maximize")
GAP = Metric(name="train_val_gap", goal="minimize")


def mirrored(*objectives: Metric, trials: int = 30) -> tuple[Mirror, Sequence[TrialRecord], optuna.Study]:
    sweep, histories = made_up.sweep(trials=trials, seed=1)
    mirror = Mirror("made up", objectives, sweep.axes)
    mirror.update(sweep.records, lambda trial: histories[trial])
    return mirror, sweep.records, optuna.load_study(study_name="made up", storage=mirror.storage)


def test_every_trial_with_its_state_values_and_curve() -> None:
    _, records, study = mirrored(ACCURACY)
    assert study.metric_names == ["best_val_acc"]
    states = {TrialState.COMPLETE: OptunaState.COMPLETE, TrialState.PRUNED: OptunaState.PRUNED}
    for record, trial in zip(records, study.get_trials(), strict=True):
        assert trial.state is states.get(record.state, trial.state)
        assert trial.params["lr"] == record.parameters["lr"]
        assert trial.user_attrs["trial"] == record.trial_id and trial.user_attrs["model"] == "resnet18"
        if record.state is TrialState.COMPLETE:
            assert record.result is not None and trial.value == record.result.best_val_acc
            assert len(trial.intermediate_values) == made_up.EPOCHS
            assert (trial.datetime_start, trial.datetime_complete) == (
                datetime.fromtimestamp(record.started_at or 0),
                datetime.fromtimestamp(record.ended_at or 0),
            )
    assert study.trials[-1].state is OptunaState.RUNNING


def test_several_objectives_have_values_and_no_curve() -> None:
    _, records, study = mirrored(ACCURACY, GAP)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for record, trial in zip(records, study.get_trials(), strict=True):
        assert not trial.intermediate_values
        if record.result is not None:
            assert trial.values == [record.result.best_val_acc, record.result.train_val_gap]


def test_it_follows_a_trial_to_its_end() -> None:
    sweep, histories = made_up.sweep(trials=6, seed=1)
    *_, running = sweep.records
    mirror = Mirror("made up", [ACCURACY], sweep.axes)
    mirror.update([running], lambda trial: histories[trial][:2])
    study = optuna.load_study(study_name="made up", storage=mirror.storage)
    assert len(study.trials[0].intermediate_values) == 2
    (done,) = [TrialRecord(**{**vars(running), "state": TrialState.PRUNED, "result": sweep.records[0].result})]
    asked: list[str] = []
    for _ in range(2):
        mirror.update([done], lambda trial: (asked.append(trial), histories[trial][:3])[1])  # type: ignore[func-returns-value]
    (trial,) = study.get_trials()
    assert trial.state is OptunaState.PRUNED and len(trial.intermediate_values) == 3
    assert len(asked) == 1, "one that has ended is not read again"


def test_a_trial_that_diverged_failed_to_optuna(result: Callable[..., Any]) -> None:
    sweep, _ = made_up.sweep(trials=1)
    (record,) = sweep.records
    bad = TrialRecord(
        **{**vars(record), "state": TrialState.COMPLETE, "result": result(best_epoch=0, best_val_acc=0.0)}
    )
    mirror = Mirror("made up", [ACCURACY], sweep.axes)
    mirror.update([bad], lambda trial: [])
    assert optuna.load_study(study_name="made up", storage=mirror.storage).trials[0].state is OptunaState.FAIL


@pytest.fixture
def entry(tmp_path: Path, complete: Callable[..., TrialOutcome]) -> SweepEntry:
    """A sweep with one trial that is done."""
    parameters: Mapping[str, Any] = {
        **{name: {"value": value} for name, value in TINY.items()},
        "lr": {"min": 0.001, "max": 0.01},
        "dropout": {"values": [0.0, 0.5]},
    }
    sweep = {"method": "random", "metric": {"name": "best_val_acc", "goal": "maximize"}, "parameters": parameters}
    (tmp_path / "s.yaml").write_text(json.dumps(sweep))
    made = registry.create(tmp_path / "s.yaml", search="optuna")
    _work(made, complete(best_val_acc=0.5))
    return made


def _work(entry: SweepEntry, outcome: TrialOutcome) -> None:
    search = registry.open_search(entry)
    try:
        request = search.next_trial("slot")
        search.report(request.trial_id, 1, {"epoch": 1.0, "val_acc": 0.5})  # type: ignore[union-attr]
        search.finish(request.trial_id, outcome)  # type: ignore[union-attr]
    finally:
        search.close()


@pytest.fixture
def address(entry: SweepEntry, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the dashboard of the sweep answers."""
    pytest.importorskip("optuna_dashboard", reason="the dashboard needs optuna-dashboard: the extra `dashboard`")
    servers: list[Any] = []
    make = dashboard.make_server
    monkeypatch.setattr(dashboard, "make_server", lambda *a, **k: servers.append(make(*a, **k)) or servers[-1])
    found: list[str] = []
    ready = threading.Event()
    thread = threading.Thread(
        target=dashboard.serve,
        args=(entry,),
        kwargs={"port": 0, "every_s": 0.05, "on_ready": lambda url: (found.append(url), ready.set())},
    )
    thread.start()
    assert ready.wait(20)
    yield found[0]
    servers[0].shutdown()
    thread.join(10)
    assert not thread.is_alive()


def test_the_dashboard_answers_on_loopback_and_follows(
    address: str, entry: SweepEntry, complete: Callable[..., TrialOutcome]
) -> None:
    assert address.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=address) as client:
        assert client.get("/dashboard/").status_code == 200
        (study,) = client.get("/api/studies").json()["study_summaries"]
        assert entry.id in study["study_name"]
        trials = client.get(f"/api/studies/{study['study_id']}?after=0").json()["trials"]
        assert [trial["state"] for trial in trials] == ["Complete"]
        _work(entry, complete(best_val_acc=0.7))
        for _ in range(100):  # the dashboard itself looks again after two seconds
            trials = client.get(f"/api/studies/{study['study_id']}?after=0").json()["trials"]
            if len(trials) == 2:
                break
            threading.Event().wait(0.1)
        assert [trial["values"] for trial in trials] == [[0.5], [0.7]]


def test_it_only_shows_and_only_to_this_machine(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        assert client.delete("/api/studies/0").status_code == 405
        assert client.post("/api/studies", json={"study_name": "x", "directions": ["minimize"]}).status_code == 405
        assert client.get("/api/studies", headers={"Host": "evil.example"}).status_code == 403
        assert len(client.get("/api/studies").json()["study_summaries"]) == 1


def test_a_port_that_is_taken(entry: SweepEntry, address: str) -> None:
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}") as raised:
        dashboard.serve(entry, port=port)
    assert raised.value.hint == "--port 0 takes a free one"
