"""The W&B run of each trial: what fersweep decides, with scripted runs, and what it relies on, with stock wandb."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.wandb_client.package import close_wandb, service_process
from fer_sweep.wandb_client.tracking import (
    BACK_ONLINE_S,
    FINISH_IN_TROUBLE_S,
    FINISH_S,
    RunLabels,
    TrackedRun,
    Tracker,
)
from tests.support.processes import until
from tests.support.standin.state import Run
from tests.support.standin.stock import BIN, PROGRAMS

COMPLETE = TrialOutcome(TrialState.COMPLETE)


@pytest.fixture
def labels():
    return RunLabels(name="a", group="g", project="faces", tags=("vit",), notes="fersweep train --config x")


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


def log_epochs(run: TrackedRun, *numbers: int) -> None:
    for epoch in numbers:
        run.log({"epoch": epoch, "val_acc": epoch / 10})


@pytest.fixture
def ends():
    """Runs that have ended, and whether all of each is where it should be."""
    return []


@pytest.fixture
def tracker(scripted_wandb, ends):
    return Tracker(on_end=lambda *end: ends.append(end))


def test_the_users_environment_adds_to_a_runs_labels_and_a_stock_agents_is_left_out(
    scripted_wandb, labels, monkeypatch
):
    mine = {"WANDB_RUN_GROUP": "mine", "WANDB_TAGS": "a, b", "WANDB_NOTES": "why", "WANDB_JOB_TYPE": "night"}
    stock = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
    for name, value in {**mine, **dict.fromkeys(stock, "x")}.items():
        monkeypatch.setenv(name, value)
    Tracker().start(labels, {}, run_id="r1").finish(COMPLETE)
    (run,) = scripted_wandb.server.runs.values()
    assert (run.id, run.group, run.job_type, run.tags) == ("r1", "mine", "night", ["vit", "a", "b"])
    assert run.notes == "why\nfersweep train --config x"
    assert not os.environ.keys() & set(stock)


def test_only_a_tracker_that_obeys_pages_passes_their_stop_button_on(scripted_wandb, labels):
    for obeys, run_id in ((True, "r1"), (False, "r2")):
        run = Tracker(obey_pages=obeys).start(labels, {}, run_id=run_id)
        scripted_wandb.server.stop_run(run_id)
        log_epochs(run, 1)
        assert run.stop_asked == obeys


def test_a_server_out_of_reach_is_not_tried_for_a_while_and_runs_stay_offline(scripted_wandb, labels, ends, caplog):
    scripted_wandb.server.faults.offline()
    clock = 0.0
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


def test_a_network_cut_at_the_end_is_waited_for_by_one_run_only(scripted_wandb, labels, tracker, ends):
    runs = [tracker.start(labels, {}, run_id=run_id) for run_id in ("r0", "r1")]
    scripted_wandb.server.faults.offline()
    waits = []
    for run in runs:
        waits.append(run.timeout_s())
        run.finish(COMPLETE)
    assert waits == [FINISH_S, FINISH_IN_TROUBLE_S]
    assert ends == [("r0", False), ("r1", False)]


@pytest.mark.stock
@pytest.mark.parametrize("keep", [False, True])
def test_a_complete_run_has_an_axis_a_chart_and_its_model_if_asked_for(online, labels, tmp_path, complete, keep):
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


@pytest.mark.stock
def test_the_stop_button_of_a_runs_page_is_heard_and_interrupts_nobody(online, labels, monkeypatch):
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
def test_a_run_is_kept_in_files_while_the_server_is_out_of_reach(online, labels, monkeypatch):
    monkeypatch.setattr("fer_sweep.wandb_client.tracking.INIT_S", 1.0)
    online.faults.offline()
    run = Tracker().start(labels, {"lr": 0.1})  # wandb keeps the id of a run that it could not start; this has none
    log_epochs(run, 1, 2, 3)
    run.finish(COMPLETE)
    close_wandb()  # writes out what is still on its way to the disk
    online.faults.online()
    folders = list(Path().glob("wandb/offline-run-*"))
    subprocess.run([BIN / "wandb", "sync", *folders], check=True, capture_output=True)
    (kept,) = online.runs.values()
    assert epochs(kept) == [1, 2, 3]


@pytest.mark.stock
def test_a_service_that_dies_while_it_starts_holds_up_nobody(online):
    # wandb 0.31 then waits for a lock that it holds itself.
    subprocess.run([sys.executable, PROGRAMS / "dead_service.py"], check=True, timeout=60)


@pytest.mark.stock
def test_a_run_after_a_killed_service_has_a_new_one(online, labels):
    first = Tracker().start(labels, {}, run_id="r1")
    service = service_process()
    assert service is not None
    service.kill()
    second = Tracker().start(labels, {}, run_id="r2")
    assert second.run is None and second.had_trouble
    assert service.returncode is not None, "reaped"
    third = Tracker().start(labels, {}, run_id="r3")
    log_epochs(third, 1)
    for run in (first, third):
        run.finish(COMPLETE)
    assert (first.had_trouble, third.had_trouble) == (True, False)
    assert online.runs["r3"].state == "finished"
