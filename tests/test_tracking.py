"""W&B runs: offline, wandb's own files are written and read back; online, a server on loopback takes them."""

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fer_sweep import wandb_service
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.run_labels import RunLabels
from fer_sweep.tracking import BACK_ONLINE_S, TrackedRun, Tracker, close_wandb
from tests.support.processes import until
from tests.support.standin.server import StandIn
from tests.support.standin.state import Run


def test_disabled_tracking_takes_everything_and_writes_nothing(tmp_path: Path) -> None:
    run = Tracker().start(RunLabels(name="a", group="g"), {"lr": 0.1})
    run.log({"epoch": 1, "val_acc": 0.5})
    run.finish(TrialOutcome(TrialState.COMPLETE))
    assert run.run is None
    assert not (tmp_path / "wandb").exists()


OFFLINE = """
import glob, os
from fer_sweep import wandb_service
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.run_labels import RunLabels
from fer_sweep.tracking import Tracker

config = {"lr": 0.1, "augment": {"flip": True}}
runs = [Tracker().start(RunLabels(name=f"trial-{n}", group="sweep1", tags=("vit",)), config, run_id=f"sweep1-{n}")
        for n in range(2)]
for epoch in (1, 2):
    for run in runs:  # both open at once, as in an agent with two slots
        run.log({"epoch": epoch, "val_acc": epoch / 10})
runs[0].finish(TrialOutcome(TrialState.COMPLETE))
runs[1].finish(TrialOutcome(TrialState.FAILED, reason="out of patience"))
"""


def _transaction_log(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after a header of 7 bytes, in blocks of 32 KiB."""
    block, position, record = 32768, 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        _crc, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def test_offline_runs_hold_config_history_and_how_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto import wandb_internal_pb2 as pb

    monkeypatch.setenv("WANDB_MODE", "offline")
    # A process of its own: wandb's service outlives the run that starts it and ends with its process.
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for file in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        records = [pb.Record.FromString(data) for data in _transaction_log(file.read_bytes())]
        found[next(r.run.run_id for r in records if r.HasField("run"))] = records
    assert set(found) == {"sweep1-0", "sweep1-1"}
    for name, code in (("sweep1-0", 0), ("sweep1-1", 1)):
        records = found[name]
        run = next(r.run for r in records if r.HasField("run"))
        assert run.run_group == "sweep1"
        assert run.job_type == "trial"
        assert {update.key for update in run.config.update} >= {"lr", "augment"}
        assert sum(r.HasField("history") for r in records) == 2
        assert [r.exit.exit_code for r in records if r.HasField("exit")] == [code]


@pytest.fixture
def labels() -> RunLabels:
    return RunLabels(name="a", group="g", project="faces", tags=("vit",), notes="fersweep train --config x")


def history_of(file: Path) -> int:
    """Steps in one of wandb's own files."""
    from wandb.proto import wandb_internal_pb2 as pb

    return sum(pb.Record.FromString(data).HasField("history") for data in _transaction_log(file.read_bytes()))


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


def log_epochs(run: TrackedRun, *numbers: int) -> None:
    for epoch in numbers:
        run.log({"epoch": epoch, "val_acc": epoch / 10})


def test_a_preempted_run_goes_on_under_its_id_without_repeats(online: StandIn, labels: RunLabels) -> None:
    first = Tracker().start(labels, {"lr": 0.1}, run_id="r1")
    log_epochs(first, 1, 2, 3)
    first.mark_preempting()
    first.finish(TrialOutcome(TrialState.PREEMPTED, reason="the host is needed"))
    assert online.runs["r1"].state == "preempted"
    again = Tracker().start(labels, {"lr": 0.1}, run_id="r1")
    log_epochs(again, 1, 2, 3, 4, 5)  # a resumed trial sends its earlier epochs again
    again.finish(TrialOutcome(TrialState.COMPLETE))
    run = online.runs["r1"]
    assert epochs(run) == [1, 2, 3, 4, 5]
    assert (run.state, run.exit_code) == ("finished", 0)


def test_a_run_begun_anew_elsewhere_goes_on_where_the_server_stands(online: StandIn, labels: RunLabels) -> None:
    first = Tracker().start(labels, {}, run_id="r1")
    log_epochs(first, 1, 2, 3)
    first.finish(TrialOutcome(TrialState.PREEMPTED))
    again = Tracker().start(labels, {}, run_id="r1")
    log_epochs(again, 1, 2)
    again.finish(TrialOutcome(TrialState.FAILED, reason="x"))
    assert epochs(online.runs["r1"]) == [1, 2, 3]


def test_the_best_model_is_an_artifact_if_asked_for(
    online: StandIn, labels: RunLabels, tmp_path: Path, complete: Callable[..., TrialOutcome]
) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    for keep in (False, True):
        run = Tracker(keep_models=keep).start(labels, {}, run_id=f"r{keep}", folder=tmp_path)
        run.finish(complete())
    models = [artifact for artifact in online.artifacts.values() if artifact.type == "model"]
    assert [(m.name, m.run_id, m.files["best.safetensors"]) for m in models] == [("model-rTrue", "rTrue", b"weights")]


def test_the_confusion_matrix_is_a_chart(
    online: StandIn, labels: RunLabels, complete: Callable[..., TrialOutcome]
) -> None:
    run = Tracker().start(labels, {}, run_id="r1")
    log_epochs(run, 1)
    run.finish(complete())
    table = next(a for a in online.artifacts.values() if a.type == "run_table")
    (content,) = (json.loads(data) for name, data in table.files.items() if name.endswith(".table.json"))
    assert content["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert len(content["data"]) == 49
    assert content["data"][1] == ["angry", "disgust", 1]
    chart = online.runs["r1"].wandb_config["visualize"]["confusion_matrix"]
    assert chart["panel_config"]["panelDefId"] == "wandb/confusion_matrix/v1"


def test_epoch_is_the_x_axis(online: StandIn, labels: RunLabels) -> None:
    run = Tracker().start(labels, {}, run_id="r1")
    log_epochs(run, 1)
    run.finish(TrialOutcome(TrialState.COMPLETE))
    metrics = online.runs["r1"].wandb_config["m"]
    assert any(metric.get("1") == "epoch" for metric in metrics)
    assert any("5" in metric for metric in metrics), "the others have it as their step"


def test_wandbs_environment_has_its_say(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {"RUN_GROUP": "mine", "TAGS": "a, b", "NOTES": "why", "JOB_TYPE": "night", "DIR": str(tmp_path / "else")}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    (tmp_path / "else").mkdir()
    run = Tracker().start(labels, {}, run_id="r1")
    run.finish(TrialOutcome(TrialState.COMPLETE))
    found = online.runs["r1"]
    assert (found.group, found.job_type, found.tags) == ("mine", "night", ["vit", "a", "b"])
    assert found.notes == "why\nfersweep train --config x"
    assert list((tmp_path / "else" / "wandb").glob("run-*-r1"))


def test_what_a_stock_agent_left_in_the_environment_is_not_for_our_runs(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    monkeypatch.setenv("WANDB_SWEEP_ID", "theirs")
    run = Tracker().start(labels, {}, run_id="ours")
    run.finish(TrialOutcome(TrialState.COMPLETE))
    assert list(online.runs) == ["ours"]


def test_the_stop_button_of_a_runs_page_is_heard_and_interrupts_nobody(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.sdk.lib.run_stopping import RunStopChecker

    monkeypatch.setitem(RunStopChecker.__init__.__kwdefaults__, "poll_interval", 0.05)  # 15 s otherwise
    monkeypatch.setattr("fer_sweep.tracking.TRANSMIT_S", 1.0)  # wandb takes whole seconds
    heeding = Tracker().start(labels, {}, run_id="heeding")
    deaf = Tracker(obey_pages=False).start(labels, {}, run_id="deaf")
    for run in ("heeding", "deaf"):
        online.stop_run(run)
    for run in (heeding, deaf):
        log_epochs(run, 1)
    # By default wandb would send this process SIGINT, and pytest with it would end here.
    until(lambda: heeding.stop_asked)
    assert not deaf.stop_asked
    for run in (heeding, deaf):
        run.finish(TrialOutcome(TrialState.PRUNED))


def test_a_server_that_is_gone_costs_one_wait_and_the_next_runs_are_kept_offline(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fer_sweep.tracking.INIT_S", 1.0)
    online.faults.offline()
    clock = 0.0
    ends: list[tuple[str, bool]] = []
    tracker = Tracker(clock=lambda: clock, on_end=lambda run, whole: ends.append((run, whole)))
    for name in ("r1", "r2"):
        run = tracker.start(labels, {"lr": 0.1}, run_id=name)
        log_epochs(run, 1, 2)
        run.finish(TrialOutcome(TrialState.COMPLETE))
    assert caplog.text.count("could not start a run") == 1, "not tried again at once"
    (kept,) = Path().glob("wandb/offline-run-*-r2/*.wandb")
    online.faults.online()
    clock = BACK_ONLINE_S + 1
    back = tracker.start(labels, {}, run_id="r3")
    back.finish(TrialOutcome(TrialState.COMPLETE))
    assert online.runs["r3"].state == "finished"
    close_wandb()  # writes out what is still on its way to the disk
    assert history_of(kept) == 2
    assert ends == [("r1", False), ("r2", False), ("r3", True)]


def test_a_run_without_an_id_goes_offline_by_itself(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.tracking.INIT_S", 1.0)
    online.faults.offline()
    run = Tracker().start(labels, {"lr": 0.1})
    log_epochs(run, 1, 2, 3)
    run.finish(TrialOutcome(TrialState.COMPLETE))
    close_wandb()  # writes out what is still on its way to the disk
    (kept,) = Path().glob("wandb/offline-run-*/*.wandb")
    assert history_of(kept) == 3


def test_a_network_cut_at_the_end_is_waited_for_once_and_then_hardly(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.tracking.FINISH_S", 1.0)
    monkeypatch.setattr("fer_sweep.tracking.FINISH_IN_TROUBLE_S", 0.0)
    ends: list[tuple[str, bool]] = []
    tracker = Tracker(on_end=lambda run, whole: ends.append((run, whole)))
    runs = [tracker.start(labels, {}, run_id=f"r{number}") for number in range(3)]
    online.faults.offline()
    waits = []
    for run in runs:
        log_epochs(run, 1, 2)
        began = time.monotonic()
        run.finish(TrialOutcome(TrialState.COMPLETE))
        waits.append(time.monotonic() - began)
    assert ends == [("r0", False), ("r1", False), ("r2", False)]
    assert waits[0] >= 1.0 > max(waits[1:])


DIES_AT_ONCE = """
import time
from wandb.sdk.lib.service import service_process
import fer_sweep.tracking as tracking
from fer_sweep import wandb_service
from fer_sweep.records import TrialOutcome, TrialState

service_process.get_core_path = lambda: "false"
tracking.HANGS_S = 2.0
ended = []
tracker = tracking.Tracker(on_end=lambda run_id, whole: ended.append((run_id, whole)))
for name in ("a", "b"):
    began = time.monotonic()
    run = tracker.start(tracking.RunLabels(name=name, group="g"), {}, run_id=name)
    assert run.run is None and run.had_trouble
    run.log({"epoch": 1})
    run.finish(TrialOutcome(TrialState.COMPLETE))
assert time.monotonic() - began < 1.0, "the second run waits for nothing"
assert ended == [("a", False), ("b", False)], ended
tracking.close_wandb()
"""


def test_a_service_that_dies_while_it_starts_holds_up_nobody(online: StandIn) -> None:
    # wandb 0.31 then waits for a lock that it holds itself.
    done = subprocess.run([sys.executable, "-c", DIES_AT_ONCE], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_service_that_does_not_answer_is_ended_and_the_next_run_has_another(
    online: StandIn, labels: RunLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Tracker().start(labels, {}, run_id="r1")
    service = wandb_service.process()
    assert service is not None
    service.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr("fer_sweep.tracking.HANGS_S", 1.0)
        patch.setattr("fer_sweep.wandb_service.is_paused", lambda: False)  # as one that hangs by itself
        second = Tracker().start(labels, {}, run_id="r2")
    assert second.run is None and second.had_trouble
    assert service.wait(timeout=60) == -signal.SIGKILL
    third = Tracker().start(labels, {}, run_id="r3")
    log_epochs(third, 1)
    for run in (first, third):
        run.finish(TrialOutcome(TrialState.COMPLETE))
    assert first.had_trouble
    assert not third.had_trouble
    assert online.runs["r3"].state == "finished"


def test_no_key_is_in_what_is_written(online: StandIn, labels: RunLabels, tmp_path: Path) -> None:
    run = Tracker().start(labels, {"lr": 0.1}, run_id="r1")
    log_epochs(run, 1)
    run.finish(TrialOutcome(TrialState.COMPLETE))
    secret = online.api_key.encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    sent = online.runs["r1"]
    assert online.api_key not in repr((sent.config, sent.summary, sent.files, sent.notes, sent.wandb_config))
