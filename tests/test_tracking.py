"""The W&B run of each trial: what fersweep decides, with scripted runs, and what it relies on, with stock wandb."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.wandb_client import service as wandb_service
from fer_sweep.wandb_client.run_labels import RunLabels
from fer_sweep.wandb_client.tracking import (
    BACK_ONLINE_S,
    FINISH_IN_TROUBLE_S,
    FINISH_S,
    TrackedRun,
    Tracker,
    close_wandb,
)
from tests.support.processes import until
from tests.support.standin.scripted_wandb import ScriptedWandb
from tests.support.standin.server import StandIn
from tests.support.standin.state import Run
from tests.support.standin.stock import PROGRAMS

COMPLETE = TrialOutcome(TrialState.COMPLETE)


@pytest.fixture
def labels() -> RunLabels:
    return RunLabels(name="a", group="g", project="faces", tags=("vit",), notes="fersweep train --config x")


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


def log_epochs(run: TrackedRun, *numbers: int) -> None:
    for epoch in numbers:
        run.log({"epoch": epoch, "val_acc": epoch / 10})


def test_disabled_tracking_takes_everything_and_writes_nothing(tmp_path: Path) -> None:
    run = Tracker().start(RunLabels(name="a", group="g"), {"lr": 0.1})
    log_epochs(run, 1)
    run.finish(COMPLETE)
    assert run.run is None
    assert not (tmp_path / "wandb").exists()


def test_the_users_environment_adds_to_a_runs_labels_and_a_stock_agents_is_left_out(
    scripted_wandb: ScriptedWandb, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"WANDB_RUN_GROUP": "mine", "WANDB_TAGS": "a, b", "WANDB_NOTES": "why", "WANDB_JOB_TYPE": "night"}
    stock = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
    for name, value in {**mine, **dict.fromkeys(stock, "x")}.items():
        monkeypatch.setenv(name, value)
    Tracker().start(labels, {}, run_id="r1").finish(COMPLETE)
    (run,) = scripted_wandb.server.runs.values()
    assert (run.id, run.group, run.job_type, run.tags) == ("r1", "mine", "night", ["vit", "a", "b"])
    assert run.notes == "why\nfersweep train --config x"
    assert not os.environ.keys() & set(stock)


def test_only_a_tracker_that_obeys_pages_passes_their_stop_button_on(
    scripted_wandb: ScriptedWandb, labels: RunLabels
) -> None:
    heeding = Tracker().start(labels, {}, run_id="heeding")
    deaf = Tracker(obey_pages=False).start(labels, {}, run_id="deaf")
    for run_id, run in (("heeding", heeding), ("deaf", deaf)):
        scripted_wandb.server.stop_run(run_id)
        log_epochs(run, 1)
    assert (heeding.stop_asked, deaf.stop_asked) == (True, False)


def test_a_server_out_of_reach_is_not_tried_for_a_while_and_runs_stay_offline(
    scripted_wandb: ScriptedWandb, labels: RunLabels, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_wandb.server.faults.offline()
    clock = 0.0
    ends: list[tuple[str, bool]] = []
    tracker = Tracker(clock=lambda: clock, on_end=lambda *end: ends.append(end))
    for run_id in ("r1", "r2"):
        run = tracker.start(labels, {}, run_id=run_id)
        log_epochs(run, 1, 2)
        run.finish(COMPLETE)
    scripted_wandb.server.faults.online()
    clock = BACK_ONLINE_S + 1
    tracker.start(labels, {}, run_id="r3").finish(COMPLETE)
    assert scripted_wandb.refused == ["r1"]
    assert [(run.id, run.mode) for run in scripted_wandb.runs] == [("r2", "offline"), ("r3", "online")]
    assert caplog.text.count("could not start a run") == 1
    assert ends == [("r1", False), ("r2", False), ("r3", True)]


def test_a_network_cut_at_the_end_is_waited_for_by_one_run_only(
    scripted_wandb: ScriptedWandb, labels: RunLabels
) -> None:
    ends: list[tuple[str, bool]] = []
    tracker = Tracker(on_end=lambda *end: ends.append(end))
    runs = [tracker.start(labels, {}, run_id=f"r{number}") for number in range(3)]
    scripted_wandb.server.faults.offline()
    waits = []
    for run in runs:
        waits.append(run.patience())
        run.finish(COMPLETE)
    assert waits == [FINISH_S, FINISH_IN_TROUBLE_S, FINISH_IN_TROUBLE_S]
    assert ends == [("r0", False), ("r1", False), ("r2", False)]


def test_a_paused_wandb_service_starts_no_run_and_what_it_does_not_take_is_given_up(
    scripted_wandb: ScriptedWandb, labels: RunLabels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[tuple[str, bool]] = []
    tracker = Tracker(on_end=lambda *end: ends.append(end))
    before = tracker.start(labels, {}, run_id="before")
    before.patience = lambda: 0.0
    monkeypatch.setattr(wandb_service, "is_paused", lambda: True)
    scripted_wandb.server.faults.hang("file_stream")
    log_epochs(before, 1)
    assert "could not log an epoch" in caplog.text
    scripted_wandb.server.faults.clear()
    meanwhile = tracker.start(labels, {}, run_id="meanwhile")
    assert meanwhile.run is None
    meanwhile.finish(COMPLETE)
    assert ends == [("meanwhile", False)]
    assert before.had_trouble


# With stock wandb


def wandb_sync() -> None:
    """Have stock wandb send the runs that it kept in files."""
    folders = sorted(str(folder) for folder in Path().glob("wandb/offline-run-*"))
    subprocess.run([str(Path(sys.executable).with_name("wandb")), "sync", *folders], check=True, capture_output=True)


@pytest.mark.stock
def test_offline_runs_are_whole_once_wandb_sync_has_sent_them(online: StandIn) -> None:
    # A process of its own: wandb's service outlives the run that starts it and ends with its process.
    subprocess.run([sys.executable, str(PROGRAMS / "offline_runs.py")], check=True)
    assert not online.runs
    wandb_sync()
    runs = [online.runs[f"s-{number}"] for number in range(2)]
    assert [(run.state, run.exit_code) for run in runs] == [("finished", 0), ("failed", 1)]
    for run in runs:
        assert (run.sweep_id, run.group, run.job_type, run.tags) == ("abcd1234", "sweep1", "trial", ["vit"])
        assert (run.project, run.config, epochs(run)) == ("faces", {"lr": 0.1, "augment": {"flip": True}}, [1, 2])


@pytest.mark.stock
@pytest.mark.parametrize("again", [(1, 2, 3, 4, 5), (1, 2)], ids=["from its checkpoint", "from its start"])
def test_a_preempted_run_is_resumed_under_its_id_without_repeats(
    online: StandIn, labels: RunLabels, again: tuple[int, ...]
) -> None:
    first = Tracker().start(labels, {"lr": 0.1}, run_id="r1")
    log_epochs(first, 1, 2, 3)
    first.mark_preempting()
    first.finish(TrialOutcome(TrialState.PREEMPTED, reason="the host is needed"))
    run = online.runs["r1"]
    assert run.state == "preempted"
    second = Tracker().start(labels, {"lr": 0.1}, run_id="r1")
    log_epochs(second, *again)  # a resumed trial sends its earlier epochs again
    second.finish(COMPLETE)
    assert epochs(run) == list(range(1, max(3, *again) + 1))
    assert (run.state, run.exit_code) == ("finished", 0)


@pytest.mark.stock
@pytest.mark.parametrize("keep", [False, True])
def test_a_complete_run_has_an_axis_a_chart_its_model_if_asked_for_and_no_key(
    online: StandIn, labels: RunLabels, tmp_path: Path, complete: Callable[..., TrialOutcome], keep: bool
) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    run = Tracker(keep_models=keep).start(labels, {}, run_id="r1", folder=tmp_path)
    log_epochs(run, 1)
    run.finish(complete())
    sent = online.runs["r1"]
    metrics = sent.wandb_config["m"]
    assert any(metric.get("1") == "epoch" for metric in metrics)
    assert any("5" in metric for metric in metrics), "the others have it as their step"
    chart = sent.wandb_config["visualize"]["confusion_matrix"]
    assert chart["panel_config"]["panelDefId"] == "wandb/confusion_matrix/v1"
    (table,) = (artifact for artifact in online.artifacts.values() if artifact.type == "run_table")
    (content,) = (json.loads(data) for name, data in table.files.items() if name.endswith(".table.json"))
    assert content["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert (len(content["data"]), content["data"][1]) == (49, ["angry", "disgust", 1])
    models = [artifact for artifact in online.artifacts.values() if artifact.type == "model"]
    found = [(model.name, model.run_id, model.files["best.safetensors"], model.version) for model in models]
    assert found == [("model-r1", "r1", b"weights", 0)] * keep
    secret = online.api_key.encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert online.api_key not in repr((sent.config, sent.summary, sent.files, sent.notes, sent.wandb_config))


@pytest.mark.stock
def test_the_stop_button_of_a_runs_page_is_heard_and_interrupts_nobody(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.sdk.lib.run_stopping import RunStopChecker

    monkeypatch.setitem(RunStopChecker.__init__.__kwdefaults__, "poll_interval", 0.05)  # 15 s otherwise
    monkeypatch.setattr("fer_sweep.wandb_client.tracking.TRANSMIT_S", 1.0)  # wandb takes whole seconds
    run = Tracker().start(labels, {}, run_id="r1")
    online.stop_run("r1")
    log_epochs(run, 1)
    # By default wandb would send this process SIGINT, and pytest with it would end here.
    until(lambda: run.stop_asked)
    run.finish(TrialOutcome(TrialState.PRUNED))


@pytest.mark.stock
@pytest.mark.parametrize("run_id", ["r2", None])
def test_runs_are_kept_in_files_while_the_server_is_out_of_reach(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch, run_id: str | None
) -> None:
    """wandb keeps the id of a run that it could not start, so that only one without an id goes offline at once."""
    monkeypatch.setattr("fer_sweep.wandb_client.tracking.INIT_S", 1.0)
    online.faults.offline()
    tracker = Tracker()
    if run_id is not None:
        tracker.start(labels, {"lr": 0.1}, run_id="r1").finish(COMPLETE)
    run = tracker.start(labels, {"lr": 0.1}, run_id=run_id)
    log_epochs(run, 1, 2, 3)
    run.finish(COMPLETE)
    close_wandb()  # writes out what is still on its way to the disk
    online.faults.online()
    wandb_sync()
    (kept,) = online.runs.values()
    assert (kept.id == run_id or run_id is None) and epochs(kept) == [1, 2, 3]


@pytest.mark.stock
def test_a_network_cut_in_the_middle_of_a_run_loses_nothing(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.wandb_client.tracking.TRANSMIT_S", 1.0)  # wandb takes whole seconds
    run = Tracker().start(labels, {}, run_id="r1")
    log_epochs(run, 1, 2)
    online.wait_for(lambda server: "file_stream" in server.operations())
    online.faults.offline()
    log_epochs(run, 3, 4)
    online.wait_for(lambda server: any(r.operation == "file_stream" and r.status == 0 for r in server.requests))
    online.faults.online()
    log_epochs(run, 5, 6)
    run.patience = lambda: 60.0
    run.finish(COMPLETE)
    sent = online.runs["r1"]
    assert (sent.state, sent.exit_code, epochs(sent)) == ("finished", 0, [1, 2, 3, 4, 5, 6])


@pytest.mark.stock
def test_a_service_that_dies_while_it_starts_holds_up_nobody(online: StandIn) -> None:
    # wandb 0.31 then waits for a lock that it holds itself.
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "dead_service.py")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.stock
@pytest.mark.parametrize("how", ["hangs", "was killed"])
def test_a_run_after_a_lost_service_has_a_new_one(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    first = Tracker().start(labels, {}, run_id="r1")
    service = wandb_service.process()
    assert service is not None
    with monkeypatch.context() as patch:
        patch.setattr("fer_sweep.wandb_client.tracking.HANGS_S", 1.0)
        patch.setattr("fer_sweep.wandb_client.service.is_paused", lambda: False)  # it hangs by itself
        service.send_signal(signal.SIGSTOP if how == "hangs" else signal.SIGKILL)
        second = Tracker().start(labels, {}, run_id="r2")
    assert second.run is None and second.had_trouble
    assert service.wait(timeout=60) == -signal.SIGKILL
    third = Tracker().start(labels, {}, run_id="r3")
    log_epochs(third, 1)
    for run in (first, third):
        run.finish(COMPLETE)
    assert (first.had_trouble, third.had_trouble) == (True, False)
    assert online.runs["r3"].state == "finished"
