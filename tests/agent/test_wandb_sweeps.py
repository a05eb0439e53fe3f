"""Agents at work on sweeps of a W&B server: real trials, real wandb runs, over HTTP to the stand-in."""

import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from fer_sweep.agent.session import trial_tracking, work_on
from fer_sweep.agent.shown import AgentSummary
from fer_sweep.agent.slots import make_slots
from fer_sweep.errors import AgentFailed, FersweepError
from fer_sweep.files import trial_folder
from fer_sweep.records import TrialState
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.pages import close_page, page_of
from fer_sweep.search.registry import create, find, load, open_search
from tests.support.agent_stage import Lingering, Stage, View
from tests.support.scripted_search import TINY
from tests.support.standin.client import Client
from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

pytestmark = pytest.mark.usefixtures("tiny_data")


class Lab:
    """A sweep on the stand-in and an agent for it in this process."""

    def __init__(self, server: StandIn, cache: str) -> None:
        self.server = server
        self.stage = Stage(Path(), cache)
        self.entry: SweepEntry | None = None

    def create(self, *, search: str | None = None, **changes: Any) -> SweepEntry:
        parameters = {name: {"value": value} for name, value in {**TINY, "seed": 0}.items()}
        parameters["lr"] = {"min": 0.001, "max": 0.01}
        parameters.update(changes.pop("parameters", {}))
        parameters = {name: value for name, value in parameters.items() if value is not None}
        metric = {"name": "best_val_acc", "goal": "maximize"}
        plain = {"method": "random", "metric": metric, "run_cap": 2, **changes, "parameters": parameters}
        Path("sweep.yaml").write_text(yaml.safe_dump({key: value for key, value in plain.items() if value is not None}))
        self.entry = create(Path("sweep.yaml"), search=search)
        assert self.entry.search == (search or "wandb")
        return self.entry

    def work(
        self,
        *,
        slots: int = 1,
        on_epoch: Callable[[str, int], None] = lambda trial, epoch: None,
        view: View | None = None,
        caches: Mapping[int, str] | None = None,
    ) -> AgentSummary:
        assert self.entry is not None
        entry = self.entry
        self.stage.view = view or View(on_epoch)
        self.stage.folder = trial_folder(entry.id, "x").parent
        search = open_search(entry)
        try:
            track = trial_tracking(entry, note=self.stage.view.note)
            return self.stage.run(search, slots=slots, track=track, caches=caches)
        finally:
            search.close()

    @property
    def runs(self) -> list[Run]:
        assert self.entry is not None
        sweep = self.server.sweeps.get(self.entry.id) or next(iter(self.server.sweeps.values()))
        return [self.server.runs[run] for run in sweep.run_ids]


@pytest.fixture
def lab(online: StandIn, tiny_cache: Path) -> Lab:
    return Lab(online, str(tiny_cache))


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


def test_trains_what_the_server_proposes_and_ends_when_the_sweep_does(lab: Lab) -> None:
    entry = lab.create(run_cap=3, parameters={"augment": {"parameters": {"shift": {"values": [0.1, 0.2]}}}})
    summary = lab.work(slots=2)
    assert summary.ended == {TrialState.COMPLETE: 3}
    assert lab.server.sweeps[entry.id].state == "FINISHED"
    assert len(lab.server.sweeps[entry.id].agents) == 2, "each slot is an agent of its own"
    for run in lab.runs:
        assert (run.state, run.exit_code, run.sweep_id) == ("finished", 0, entry.id)
        assert epochs(run) == [1, 2, 3]
        assert [row["_step"] for row in run.history] == [1, 2, 3, 4], "the confusion matrix follows the last epoch"
        assert run.config["augment"]["shift"] in (0.1, 0.2), "nested, as in the file"
        assert run.config["epochs"] == 3
        assert (run.group, run.job_type, run.tags) == (entry.id, "trial", ["simple_cnn"])
        assert run.display_name == f"simple_cnn-{run.id}"
        assert run.notes is not None and run.notes.startswith("fersweep train --config ")
        assert run.summary["state"] == "complete"
        assert {"best_val_acc", "train_val_gap", "macro_f1", "verdict"} <= run.summary.keys()
        assert "confusion_matrix_table" in run.summary
        assert (trial_folder(entry.id, run.id) / "result.json").is_file()


def test_a_stop_from_the_server_ends_the_trial_with_its_history_and_result(lab: Lab) -> None:
    lab.create(run_cap=1, parameters={"epochs": {"value": 5000}})
    pressed: list[str] = []

    def press(trial: str, epoch: int) -> None:
        if not pressed:
            lab.server.stop_run(trial)
            pressed.append(trial)

    assert lab.work(on_epoch=press).ended == {TrialState.PRUNED: 1}
    (stopped,) = lab.runs
    assert (stopped.state, stopped.summary["state"]) == ("finished", "pruned")
    assert epochs(stopped) == list(range(1, len(epochs(stopped)) + 1))
    assert stopped.summary["best_val_acc"] > 0


def test_a_paused_sweep_makes_the_agent_wait_and_a_resumed_one_goes_on(lab: Lab) -> None:
    entry = lab.create(run_cap=2)

    def pause(trial: str, epoch: int) -> None:
        if trial == lab.runs[0].id and epoch == 1:
            lab.server.set_sweep_state(entry.id, "PAUSED")

    resumed: list[str] = []
    note = View.note

    def on_note(view: View, text: str) -> None:
        note(view, text)
        if "paused" in text and not resumed:
            resumed.append(text)
            lab.server.set_sweep_state(entry.id, "RUNNING")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(View, "note", on_note)
        assert lab.work(on_epoch=pause).ended == {TrialState.COMPLETE: 2}
    assert resumed


def test_a_cancelled_sweep_checkpoints_what_runs_and_ends_the_agent(lab: Lab) -> None:
    entry = lab.create(run_cap=2, parameters={"epochs": {"value": 5000}})

    def cancel(trial: str, epoch: int) -> None:
        if epoch == 2:
            lab.server.set_sweep_state(entry.id, "CANCELED")

    assert lab.work(on_epoch=cancel).ended == {TrialState.PREEMPTED: 1}
    (run,) = lab.runs
    assert run.state not in ("running", "preempting")
    assert epochs(run) == list(range(1, len(epochs(run)) + 1))
    assert (trial_folder(entry.id, run.id) / "last.ckpt").is_file()


def test_a_killed_trial_is_requeued_by_the_server_and_goes_on_from_its_checkpoint(lab: Lab) -> None:
    lab.create(run_cap=1, parameters={"epochs": {"value": 60}})
    killed: list[int] = []

    def kill(trial: str, epoch: int) -> None:
        if epoch == 20 and not killed:
            killed.append(lab.stage.starter.pids[-1])
            os.kill(killed[0], signal.SIGKILL)

    assert lab.work(on_epoch=kill).ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}
    (run,) = lab.runs
    assert (run.state, run.exit_code) == ("finished", 0)
    assert epochs(run) == list(range(1, 61)), "no gap and no repeat"
    commands = [c["type"] for agent in lab.server.sweeps[run.sweep_id or ""].agents for c in agent.commands]
    assert commands == ["run", "resume", "exit"]


def test_a_failing_trial_is_failed_on_the_server_with_its_reason(lab: Lab) -> None:
    weights = {"model": {"value": "vit"}, "pretrained": {"value": "nobody/nothing"}, "channels": None, "hidden": None}
    lab.create(run_cap=1, parameters=weights)
    with pytest.raises(AgentFailed, match="nobody/nothing"):
        lab.work()
    (run,) = lab.runs
    assert (run.state, run.exit_code, run.summary["state"]) == ("failed", 1, "failed")
    assert "nobody/nothing" in run.summary["reason"]


def test_what_failed_in_a_broken_slot_is_handed_out_again_by_the_server(lab: Lab, tmp_path: Path) -> None:
    (empty := tmp_path / "no-cache").mkdir()
    lab.create(run_cap=4, parameters={"epochs": {"value": 60}})
    summary = lab.work(slots=2, view=Lingering(lab.stage.starter), caches={1: str(empty)})
    assert summary.ended == {TrialState.FAILED: 3, TrialState.COMPLETE: 4}
    for run in lab.runs:
        assert (run.state, run.exit_code, run.summary["state"]) == ("finished", 0, "complete")
        assert epochs(run) == list(range(1, 61))
    commands = [c["type"] for agent in lab.server.sweeps[lab.runs[0].sweep_id or ""].agents for c in agent.commands]
    assert commands.count("resume") == 3


def test_a_trial_killed_again_and_again_is_failed_on_the_server(lab: Lab) -> None:
    lab.create(run_cap=1, parameters={"epochs": {"value": 5000}})

    def kill(trial: str, epoch: int) -> None:
        os.kill(lab.stage.starter.pids[-1], signal.SIGKILL)

    with pytest.raises(AgentFailed, match="SIGKILL"):
        lab.work(on_epoch=lambda trial, epoch: kill(trial, epoch) if epoch == 1 else None)
    (run,) = lab.runs
    assert (run.state, run.exit_code) == ("failed", 1)


def test_what_the_training_function_refuses_ends_the_agent_once_it_is_all_there_is(lab: Lab) -> None:
    entry = lab.create(run_cap=None)
    lab.server.sweeps[entry.id].config["parameters"]["epochs"] = {"value": -1}
    with pytest.raises(FersweepError, match="epochs"):
        lab.work()
    assert {run.state for run in lab.runs} == {"failed"}
    assert "epochs" in lab.runs[0].summary["reason"]


def test_a_configuration_that_comes_again_is_answered_with_what_it_came_to(lab: Lab) -> None:
    entry = lab.create(run_cap=2, parameters={"lr": {"values": [0.01]}, "epochs": {"value": 5}})
    assert lab.work().ended == {TrialState.COMPLETE: 2}
    first, second = lab.runs
    assert epochs(first) == epochs(second) == [1, 2, 3, 4, 5]
    assert first.summary["seconds"] == second.summary["seconds"], "it was not trained again"
    assert first.summary["best_val_acc"] == second.summary["best_val_acc"]
    assert (trial_folder(entry.id, second.id) / "best.safetensors").is_file()


def test_a_deleted_sweep_lets_the_running_trial_finish_and_then_says_so(lab: Lab) -> None:
    entry = lab.create(run_cap=5, parameters={"epochs": {"value": 40}})

    def delete(trial: str, epoch: int) -> None:
        if epoch == 2:
            lab.server.delete_sweep(entry.id)

    with pytest.raises(FersweepError, match=f"(?s)no sweep {entry.id}|not found"):
        lab.work(on_epoch=delete)
    (run,) = [run for run in lab.server.runs.values() if run.sweep_id == entry.id]
    assert run.state == "finished"
    assert len(epochs(run)) == 40


def test_heartbeats_that_fail_are_asked_again(lab: Lab) -> None:
    lab.create(run_cap=2)
    faults = lab.server.faults
    faults.fail("CreateAgent", status=503)
    faults.drop("Heartbeat")
    faults.error("Heartbeat", "internal error")
    assert lab.work().ended == {TrialState.COMPLETE: 2}
    assert [run.state for run in lab.runs] == ["finished", "finished"]


def test_a_server_that_asks_for_patience_gets_it(lab: Lab) -> None:
    lab.create(run_cap=1)
    lab.server.faults.fail("Heartbeat", status=429, retry_after=1.5)
    assert lab.work().ended == {TrialState.COMPLETE: 1}
    refused, again, *_ = [request.at for request in lab.server.requests if request.operation == "Heartbeat"]
    assert again - refused >= 1.5


def test_a_run_whose_offer_was_lost_on_its_way_is_trained_after_all(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", "2")
    entry = lab.create(run_cap=2)
    lab.server.faults.drop("Heartbeat", after=True)
    assert lab.work().ended == {TrialState.COMPLETE: 2}
    assert [run.state for run in lab.runs] == ["finished", "finished"]
    assert lab.server.sweeps[entry.id].state == "FINISHED"


def test_a_run_that_lives_again_after_its_end_is_ended_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the wandb of a killed agent still had to say may come that late; the server waits for the run's end.
    monkeypatch.setenv("FERSWEEP_LEASE_S", "2")
    monkeypatch.setattr("fer_sweep.search.pages._SETTLED_S", 1.0)
    entry = lab.create(run_cap=2)
    path = f"/files/tester/{load(entry).project}/{{}}/file_stream"

    def come_late() -> str:
        lab.server.wait_for(lambda server: any(run.state == "finished" for run in server.runs.values()), timeout_s=60)
        run = next(run for run in lab.runs if run.state == "finished")
        with Client(lab.server) as zombie:
            assert zombie.post(path.format(run.id), {"files": {}})[0] == 200
        return run.id

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(come_late)
        summary = work_on(entry, make_slots((), cpu_slots=1), console=Console(quiet=True))
    assert summary.ended == {TrialState.COMPLETE: 2}
    assert late.result() in [run.id for run in lab.runs]
    assert [(run.state, epochs(run)) for run in lab.runs] == [("finished", [1, 2, 3])] * 2
    assert lab.server.sweeps[entry.id].state == "FINISHED"


def test_a_network_cut_in_the_middle_of_a_run_loses_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.tracking.TRANSMIT_S", 1.0)  # wandb takes whole seconds
    lab.create(run_cap=1, parameters={"epochs": {"value": 200}})

    def dropped() -> int:
        return sum(r.operation == "file_stream" and r.status == 0 for r in lab.server.requests)

    def cut(trial: str, epoch: int) -> None:
        if epoch == 10:
            lab.server.faults.offline()
        elif epoch == 20:
            lab.server.wait_for(lambda server: dropped() > 0)
            lab.server.faults.online()

    assert lab.work(on_epoch=cut).ended == {TrialState.COMPLETE: 1}
    (run,) = lab.runs
    assert (run.state, run.exit_code) == ("finished", 0)
    assert epochs(run) == list(range(1, 201))


def test_a_sweep_made_by_others_is_taken_up_by_its_address(lab: Lab) -> None:
    parameters = {name: {"value": value} for name, value in TINY.items()}
    made = lab.server.create_sweep({"program": "x.py", "method": "grid", "parameters": parameters}, project="theirs")
    lab.entry = find(f"{lab.server.url}/tester/theirs/sweeps/{made.id}")
    assert lab.entry.path == f"tester/theirs/{made.id}"
    assert find(f"tester/theirs/{made.id}") == lab.entry
    assert lab.work().ended == {TrialState.COMPLETE: 1}
    assert lab.runs[0].project == "theirs"


def test_runs_of_an_embedded_search_are_runs_of_one_sweep_on_the_server(lab: Lab) -> None:
    entry = lab.create(search="optuna", method="bayes", run_cap=3)
    assert lab.work(slots=2).ended == {TrialState.COMPLETE: 3}
    close_page(entry)
    (sweep,) = lab.server.sweeps.values()
    assert sweep.run_ids == [f"{entry.id}-{number}" for number in range(3)]
    assert (sweep.state, sweep.agents) == ("FINISHED", [])
    lr = {"distribution": "uniform", "min": 0.001, "max": 0.01}
    assert sweep.config["parameters"]["lr"] == lr, "what the axes of the plot are made from"
    for run in lab.runs:
        assert (run.state, run.sweep_id, run.group) == ("finished", sweep.id, entry.id)
        assert epochs(run) == [1, 2, 3]


def test_agents_that_start_at_once_share_one_page(lab: Lab) -> None:
    entry = lab.create(search="optuna")
    with ThreadPoolExecutor(8) as pool:
        pages = {made.url for made in pool.map(lambda _: page_of(entry), range(8))}
    assert len(pages) == len(lab.server.sweeps) == 1


def test_the_stop_button_on_a_runs_page_ends_a_trial_of_an_embedded_search(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.sdk.lib.run_stopping import RunStopChecker

    monkeypatch.setitem(RunStopChecker.__init__.__kwdefaults__, "poll_interval", 0.05)  # 15 s otherwise
    monkeypatch.setattr("fer_sweep.tracking.TRANSMIT_S", 1.0)  # wandb takes whole seconds
    entry = lab.create(search="optuna", run_cap=1, parameters={"epochs": {"value": 5000}})
    summary = lab.work(on_epoch=lambda trial, epoch: lab.server.stop_run(entry.run_id(trial)) if epoch == 2 else None)
    assert summary.ended == {TrialState.PRUNED: 1}
    assert lab.runs[0].summary["state"] == "pruned"


def test_without_the_server_an_embedded_search_goes_on_offline(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.search.wandb_transport.time.sleep", lambda seconds: None)  # between the tries
    lab.create(search="optuna", run_cap=1)
    lab.server.faults.offline()
    assert lab.work().ended == {TrialState.COMPLETE: 1}
    assert any("tracked offline" in note for note in lab.stage.view.notes)
    assert list(Path().glob("wandb/offline-run-*"))
