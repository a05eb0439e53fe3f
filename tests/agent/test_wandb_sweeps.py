"""Agents at work on sweeps of a W&B server: over HTTP to the stand-in, with played trials and scripted wandb runs."""

import functools
import io
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from fer_sweep import owners
from fer_sweep.agent import session
from fer_sweep.agent.deadline import Deadline
from fer_sweep.agent.interrupts import Interrupts
from fer_sweep.agent.running import AgentSummary
from fer_sweep.agent.session import work_on
from fer_sweep.agent.uploads import Uploads
from fer_sweep.errors import NothingToDo
from fer_sweep.files import trial_folder
from fer_sweep.records import TrialRequest, TrialState
from fer_sweep.sweeps import Sweep
from fer_sweep.sync import upload
from fer_sweep.wandb_client import server_search as wandb_server
from fer_sweep.wandb_client.server_search import WandbSearch
from fer_sweep.wandb_client.slots import Pace
from fer_sweep.worker.slots import Slot
from tests.support.agent_stage import Stage, View
from tests.support.scripted_search import TINY
from tests.support.scripted_starter import ScriptedStarter, metrics_of, outcome_of, train_then_wait
from tests.support.searches import create
from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

SLOT = Slot("cpu0", "cpu", 1)
AT_ONCE = Pace(idle_s=0.0, longest_idle_s=0.0, running_s=0.0, patience_s=20.0, report_patience_s=20.0)


class Lab:
    """A sweep on the stand-in and an agent for it in this process."""

    entry: Sweep

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.stage = Stage(Path())

    def create(self, *, search: str | None = None, **changes: Any) -> Sweep:
        parameters = {name: {"value": value} for name, value in {**TINY, "seed": 0}.items()}
        parameters |= {"lr": {"min": 0.001, "max": 0.01}, **changes.pop("parameters", {})}
        metric = {"name": "best_val_acc", "goal": "maximize"}
        plain = {"method": "random", "metric": metric, "run_cap": 2, **changes, "parameters": parameters}
        Path("sweep.yaml").write_text(yaml.safe_dump(plain))
        self.entry = create(Path("sweep.yaml"), search=search)
        self.stage.folder = trial_folder(self.entry.id, "x").parent
        return self.entry

    def work(
        self,
        *,
        slots: int = 1,
        count: int | None = None,
        on_epoch: Callable[[str, int], None] = lambda trial, epoch: None,
        **options: Any,
    ) -> AgentSummary:
        self.stage.view = View(on_epoch)
        with closing(self.entry.search()) as search:
            track = self.entry.tracker(note=self.stage.view.note)
            return self.stage.run(search, slots=slots, count=count, track=track, **options)

    @property
    def runs(self) -> list[Run]:
        return list(self.server.runs.values())


@pytest.fixture
def lab(online: StandIn, scripted_wandb: object, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.01)
    monkeypatch.setattr(wandb_server, "WandbSearch", functools.partial(WandbSearch, pace=AT_ONCE))
    return Lab(online)


def epochs(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


@pytest.mark.usefixtures("tiny_data", "played_trials")
def test_an_online_trial_is_tracked_by_stock_wandb(online: StandIn) -> None:
    """The smoke test of real wandb runs; the others of this file script them."""
    entry = Lab(online).create(run_cap=1)
    assert work_on(entry, [SLOT], console=Console(quiet=True)).ended == {TrialState.COMPLETE: 1}
    (run,) = online.runs.values()
    assert (run.state, run.exit_code, run.sweep_id) == ("finished", 0, entry.id)
    assert [row["_step"] for row in run.history] == [1, 2, 3, 4], "the confusion matrix follows the last epoch"
    assert epochs(run) == [1, 2, 3]
    assert {"best_val_acc", "train_val_gap", "macro_f1", "verdict", "confusion_matrix_table"} <= run.summary.keys()
    assert (run.group, run.job_type, run.tags) == (entry.id, "trial", ["simple_cnn"])
    assert run.display_name == f"simple_cnn-{run.id}"
    assert run.notes is not None and run.notes.startswith("fersweep train --config ")
    assert online.sweeps[entry.id].state == "FINISHED"


@pytest.mark.parametrize(("search", "agents"), [("wandb", 2), ("optuna", 0)])
def test_every_trial_is_a_whole_run_of_one_sweep_on_the_server(lab: Lab, search: str, agents: int) -> None:
    augment = {"parameters": {"shift": {"values": [0.1, 0.2]}}}
    entry = lab.create(search=search, run_cap=3, parameters={"augment": augment})
    assert lab.work(slots=2).ended == {TrialState.COMPLETE: 3}
    entry.close_page()
    (sweep,) = lab.server.sweeps.values()
    assert (sweep.state, len(sweep.agents)) == ("FINISHED", agents), "each slot is an agent of its own"
    lr = sweep.config["parameters"]["lr"]
    assert lr.items() >= {"min": 0.001, "max": 0.01}.items(), "what the axes of the plot are made from"
    assert sorted(sweep.run_ids) == sorted(run.id for run in lab.runs)
    for run in lab.runs:
        assert (run.state, run.sweep_id, run.group, epochs(run)) == ("finished", sweep.id, entry.id, [1, 2, 3])
        assert run.config["augment"]["shift"] in (0.1, 0.2), "nested, as in the file"


@pytest.mark.parametrize("search", ["wandb", "optuna"])
def test_the_stop_button_of_a_run_prunes_its_trial(lab: Lab, search: str) -> None:
    entry = lab.create(search=search, run_cap=1)
    lab.stage.starter = ScriptedStarter(train_then_wait(2))
    summary = lab.work(on_epoch=lambda trial, epoch: lab.server.stop_run(entry.run_id(trial)) if epoch == 1 else None)
    assert summary.ended == {TrialState.PRUNED: 1}
    (run,) = lab.runs
    assert (run.state, run.summary["state"], epochs(run)) == ("finished", "pruned", [1, 2])
    assert run.summary["best_val_acc"] > 0


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_preempted_run_is_requeued_by_the_server_and_resumed(lab: Lab, is_killed: bool) -> None:
    entry = lab.create(run_cap=1, parameters={"epochs": {"value": 6}})
    lab.stage.starter = starter = ScriptedStarter(train_then_wait(2))

    def preempt(trial: str, epoch: int) -> None:
        if epoch == 2 and len(starter.jobs) == 1:
            starter.kill(trial) if is_killed else os.kill(os.getpid(), signal.SIGUSR2)

    ended = lab.work(on_epoch=preempt).ended
    (run,) = lab.runs
    if not is_killed:
        assert run.state == "preempted"
        ended |= lab.work().ended
    assert ended == {TrialState.PREEMPTED: 1, TrialState.COMPLETE: 1}
    assert (run.state, run.exit_code) == ("finished", 0)
    assert epochs(run) == [1, 2, 3, 4, 5, 6], "no gap and no repeat"
    commands = [command["type"] for agent in lab.server.sweeps[entry.id].agents for command in agent.commands]
    assert commands == ["run", "resume", "exit"]


def test_slots_ask_for_no_more_trials_than_the_count_while_the_answer_is_late(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = replace(AT_ONCE, patience_s=0.0)
    monkeypatch.setattr(wandb_server, "WandbSearch", functools.partial(WandbSearch, pace=late))
    entry = lab.create(run_cap=20)
    assert lab.work(slots=2, count=1).ended == {TrialState.COMPLETE: 1}
    assert [run.state for run in lab.runs] == ["finished"]
    assert len(lab.server.sweeps[entry.id].agents) == 1


@pytest.mark.usefixtures("tiny_data", "played_trials")
def test_runs_that_stay_out_of_reach_are_named_at_the_end_and_left_to_sync(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.wandb_client.transport._LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr(session, "Uploads", functools.partial(Uploads, upload=lambda sweep_id, trials: False))
    entry = lab.create(search="optuna")
    lab.server.faults.offline()
    shown = io.StringIO()
    work_on(entry, [SLOT], console=Console(file=shown, width=200))
    assert "tracked offline" in shown.getvalue()
    assert f"not uploaded to W&B: trial 0, 1; upload: fersweep sync {entry.id}" in shown.getvalue()
    assert not lab.runs
    lab.server.faults.online()
    upload(entry, say=lambda line: None)
    assert [(run.state, epochs(run)) for run in lab.runs] == [("finished", [1, 2, 3])] * 2


@pytest.mark.usefixtures("tiny_data", "played_trials")
def test_the_end_of_a_run_that_a_killed_agent_could_not_send_is_sent_by_the_next_agent(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for that run's end, and the agent for the server."""
    entry = lab.create(run_cap=1)
    with closing(entry.search()) as search:
        request = search.next_trial("cpu0")
        assert isinstance(request, TrialRequest)
        entry.tracker()(request)
        for epoch in (1, 2, 3):
            search.report(request.trial_id, epoch, metrics_of(epoch))
        search.finish(request.trial_id, outcome_of(TrialState.COMPLETE, 3))
    assert [run.state for run in lab.runs] == ["running"]

    def sync_here(sweep_id: str, trials: Sequence[str]) -> bool:
        upload(entry, trials=trials, say=lambda line: None)
        return True

    monkeypatch.setattr(owners, "is_dead", lambda owner: True)
    monkeypatch.setattr(session, "Uploads", functools.partial(Uploads, upload=sync_here))
    with pytest.raises(NothingToDo):
        work_on(entry, [SLOT], console=Console(quiet=True))
    assert [(run.state, epochs(run)) for run in lab.runs] == [("finished", [1, 2, 3])]
    assert lab.server.sweeps[entry.id].state == "FINISHED"


def test_a_run_that_could_not_finish_before_the_deadline_is_trained_by_the_next_agent(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.sweeps.served.lease_seconds", lambda: 0.2)
    lab.create(search="wandb")
    deadline = Deadline(datetime.now().astimezone() + timedelta(hours=1))
    monkeypatch.setattr(deadline, "has_time_for", lambda request, records: setattr(deadline, "is_too_near", True))
    summary = lab.work(interrupts=Interrupts(deadline=deadline))
    assert summary.ended == {} and summary.timed_out
    assert lab.work().ended == {TrialState.COMPLETE: 2}
    assert len(lab.runs) == 2
