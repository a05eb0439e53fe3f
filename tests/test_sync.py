"""``fersweep sync`` to a server: what was trained offline becomes one sweep there, whole, once; runs are scripted."""

import fcntl
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer_sweep import sync
from fer_sweep.errors import StorageError
from fer_sweep.files import sweep_folder, trial_folder
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.sweeps import Sweep, steering
from fer_sweep.sweeps.steering import Limit
from fer_sweep.wandb_client.reconcile import Action
from tests.support.scripted_search import TINY
from tests.support.searches import create
from tests.support.standin.server import StandIn

PARAMETERS = {**{name: {"value": value} for name, value in TINY.items()}, "lr": {"min": 0.001, "max": 0.01}}


@pytest.fixture
def server(scripted_wandb):
    """The server, with runs uploaded by scripts in place of wandb."""
    return scripted_wandb.server


@pytest.fixture(params=["scripted", pytest.param("stock", marks=pytest.mark.stock)])
def any_server(request):
    """The server, with runs uploaded by scripts and by stock wandb."""
    server: StandIn = request.getfixturevalue("server" if request.param == "scripted" else "online")
    return server


@pytest.fixture
def sweep():
    """An embedded sweep."""
    plain = {"method": "random", "metric": {"name": "val_loss"}, "run_cap": 3, "parameters": PARAMETERS}
    Path("sweep.yaml").write_text(yaml.safe_dump({**plain, "project": "unplugged"}))
    return create(Path("sweep.yaml"), search="optuna")


def train(entry: Sweep, epochs: int, outcome: TrialOutcome | None) -> None:
    """Leave the history and reports of a trial of so many epochs, and end it unless its agent was killed."""
    with closing(entry.search()) as search:
        request = search.next_trial("cpu0")
        assert isinstance(request, TrialRequest)
        rows = [{"epoch": n, "val_acc": n / 100, "train_loss": 1 / n} for n in range(1, epochs + 1)]
        folder = trial_folder(entry.id, request.trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            search.report(request.trial_id, int(row["epoch"]), row)
        if outcome:
            search.finish(request.trial_id, outcome)


@pytest.fixture
def ended(sweep, complete):
    """A sweep of a complete, a pruned and a failed trial."""
    train(sweep, 3, complete(epochs=3, best_val_acc=0.03))
    train(sweep, 2, TrialOutcome(TrialState.PRUNED, complete(epochs=2).result, "stopped early"))
    train(sweep, 1, TrialOutcome(TrialState.FAILED, reason="out of memory"))
    with closing(sweep.search()) as search:
        assert search.next_trial("cpu0") is None
    return sweep


def upload(entry: Sweep) -> dict[str, Action]:
    return dict(sync.upload(entry, say=lambda line: None).actions)


def steps(server: StandIn, run: str) -> list[Any]:
    return [row.get("epoch") for row in server.runs[run].history if "val_acc" in row]


def test_every_run_is_uploaded_whole_and_once_into_one_sweep(ended, any_server):
    assert upload(ended) == {"0": Action.UPLOAD, "1": Action.UPLOAD, "2": Action.UPLOAD}
    (sweep,) = any_server.sweeps.values()
    assert (sweep.project, sweep.state) == ("unplugged", "FINISHED")
    assert sweep.config["controller"] == {"type": "local"}, "the server itself proposes nothing"
    assert sweep.run_ids == [f"{ended.id}-{n}" for n in range(3)]
    runs = [any_server.runs[run] for run in sweep.run_ids]
    assert [(run.state, run.exit_code) for run in runs] == [("finished", 0), ("finished", 0), ("failed", 1)]
    assert [steps(any_server, run) for run in sweep.run_ids] == [[1, 2, 3], [1, 2], [1]]
    assert runs[0].summary["best_val_acc"] == 0.03
    assert 0.001 <= runs[0].config["lr"] <= 0.01
    assert runs[0].config["augment"]["flip"] is True
    assert [run.summary["state"] for run in runs] == ["complete", "pruned", "failed"]
    assert runs[2].summary["reason"] == "out of memory"

    with closing(ended.search()) as search:
        record = search.records()[0]
    times = [row["_timestamp"] for row in runs[0].history if "val_acc" in row]
    assert record.started_at is not None and record.ended_at is not None
    assert record.started_at <= times[0] <= times[1] <= times[2] <= record.ended_at, "the time of the trial"

    before = len(any_server.requests)
    assert set(upload(ended).values()) == {Action.NONE}
    assert {request.operation for request in any_server.requests[before:]} <= {"Sweep", "Runs"}, "nothing is sent"


def test_a_run_that_is_there_in_part_is_completed(ended, any_server):
    upload(ended)
    run = any_server.runs[f"{ended.id}-0"]
    with any_server.store.changed:
        del run.history[1:]
        run.state, run.exit_code, run.summary = "crashed", None, {}
    assert upload(ended) == {"0": Action.COMPLETE, "1": Action.NONE, "2": Action.NONE}
    assert steps(any_server, run.id) == [1, 2, 3]
    assert (run.state, run.summary["state"]) == ("finished", "complete")


def test_a_paused_trial_is_one_run_that_is_completed_when_it_has_ended(any_server, complete):
    plain = {"method": "bayes", "metric": {"name": "val_acc", "goal": "maximize"}, "run_cap": 1}
    Path("sweep.yaml").write_text(yaml.safe_dump({**plain, "parameters": PARAMETERS}))
    sweep = create(Path("sweep.yaml"), search="optuna")
    train(sweep, 2, TrialOutcome(TrialState.PAUSED, complete(epochs=2).result, "paused in epoch 3 of 3"))
    assert upload(sweep) == {"0": Action.UPLOAD}
    run = any_server.runs[f"{sweep.id}-0"]
    assert (run.state, run.summary["state"], steps(any_server, run.id)) == ("finished", "paused", [1, 2])
    assert upload(sweep) == {"0": Action.NONE}
    train(sweep, 3, complete(epochs=3))
    assert upload(sweep) == {"0": Action.COMPLETE}
    assert (run.state, run.summary["state"], steps(any_server, run.id)) == ("finished", "complete", [1, 2, 3])


def test_the_page_of_a_sweep_that_is_given_more_trials_is_open_until_these_have_ended(ended, server, complete):
    upload(ended)
    (page,) = server.sweeps.values()
    steering.resume(ended, count=Limit(4))
    ended.page()  # as each agent asks for it
    assert page.state == "RUNNING"
    train(ended, 1, complete(epochs=1))
    with closing(ended.search()) as search:
        assert search.next_trial("cpu0") is None
    ended.close_page()
    ended.page()
    assert page.state == "FINISHED"


def test_a_deleted_page_is_created_again_also_without_a_history_file(ended, server):
    upload(ended)
    server.delete_sweep(next(iter(server.sweeps)))
    for run in list(server.runs):
        server.delete_run(run)
    (trial_folder(ended.id, "0") / "history.jsonl").unlink()
    assert set(upload(ended).values()) == {Action.UPLOAD}
    assert len(server.sweeps) == 1
    assert steps(server, f"{ended.id}-0") == [1, 2, 3], "from the database"


def test_a_running_trial_and_another_sync_are_left_alone_and_the_run_of_a_killed_agent_is_rebuilt(sweep, server):
    train(sweep, 2, None)
    with (sweep_folder(sweep.id) / ".sync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another sync does
        with pytest.raises(StorageError, match="is running"):
            upload(sweep)
    with (trial_folder(sweep.id, "0") / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as its trial process does
        assert upload(sweep) == {"0": Action.WAIT}
    assert upload(sweep) == {"0": Action.UPLOAD}
    run = server.runs[f"{sweep.id}-0"]
    assert (run.state, run.summary["reason"]) == ("preempted", "its agent was killed")
    assert steps(server, run.id) == [1, 2]
