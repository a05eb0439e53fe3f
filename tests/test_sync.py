"""``fersweep sync`` to a server: what was trained offline becomes one sweep there, whole, once; runs are scripted."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.registry import create, open_search

from fer_sweep.errors import StorageError
from fer_sweep.files import trial_folder
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.sync import Fate, sync
from tests.support.scripted_search import TINY
from tests.support.standin.scripted_wandb import ScriptedWandb
from tests.support.standin.server import StandIn

PARAMETERS = {**{name: {"value": value} for name, value in TINY.items()}, "lr": {"min": 0.001, "max": 0.01}}
METRIC = {"name": "best_val_acc", "goal": "maximize"}


@pytest.fixture
def server(scripted_wandb: ScriptedWandb) -> StandIn:
    """The server, with runs uploaded by scripts in place of wandb."""
    return scripted_wandb.server


@pytest.fixture(params=["scripted", pytest.param("stock", marks=pytest.mark.stock)])
def any_server(request: pytest.FixtureRequest) -> StandIn:
    """The server, with runs uploaded by scripts and by stock wandb."""
    server: StandIn = request.getfixturevalue("server" if request.param == "scripted" else "online")
    return server


@pytest.fixture
def sweep(own_folders: Path) -> SweepEntry:
    """An embedded sweep."""
    plain = {"method": "random", "metric": METRIC, "run_cap": 3, "parameters": PARAMETERS, "project": "unplugged"}
    Path("sweep.yaml").write_text(yaml.safe_dump(plain))
    return create(Path("sweep.yaml"), search="optuna")


def trained(entry: SweepEntry, request: TrialRequest, epochs: int) -> None:
    """Leave in the trial's folder what a training of so many epochs leaves."""
    folder = trial_folder(entry.id, request.trial_id)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"epoch": n, "val_acc": n / 100, "train_loss": 1 / n} for n in range(1, epochs + 1)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def ended(sweep: SweepEntry, complete: Callable[..., TrialOutcome]) -> SweepEntry:
    """A sweep of a complete, a pruned and a failed trial."""
    search = open_search(sweep)
    ends = (
        complete(epochs=3, best_val_acc=0.03),
        TrialOutcome(TrialState.PRUNED, complete(epochs=2).result, "stopped early"),
        TrialOutcome(TrialState.FAILED, reason="out of memory"),
    )
    for outcome, epochs in zip(ends, (3, 2, 1), strict=True):
        request = search.next_trial("cpu0")
        assert isinstance(request, TrialRequest)
        trained(sweep, request, epochs)
        for epoch in range(1, epochs + 1):
            search.report(request.trial_id, epoch, {"epoch": epoch, "val_acc": epoch / 100})
        search.finish(request.trial_id, outcome)
    assert search.next_trial("cpu0") is None
    search.close()
    return sweep


def upload(entry: SweepEntry) -> dict[str, Fate]:
    return dict(sync(entry, say=lambda line: None).fates)


def steps(server: StandIn, run: str) -> list[Any]:
    return [row.get("epoch") for row in server.runs[run].history if "val_acc" in row]


def test_every_run_is_uploaded_whole_and_into_one_sweep(ended: SweepEntry, any_server: StandIn) -> None:
    assert upload(ended) == {"0": Fate.UPLOADED, "1": Fate.UPLOADED, "2": Fate.UPLOADED}
    (sweep,) = any_server.sweeps.values()
    assert (sweep.project, sweep.state) == ("unplugged", "FINISHED")
    assert sweep.config["controller"] == {"type": "local"}, "the server itself proposes nothing"
    assert sweep.run_ids == [f"{ended.id}-{n}" for n in range(3)]
    runs = [any_server.runs[run] for run in sweep.run_ids]
    assert [(run.state, run.exit_code) for run in runs] == [("finished", 0), ("finished", 0), ("failed", 1)]
    assert [steps(any_server, run) for run in sweep.run_ids] == [[1, 2, 3], [1, 2], [1]]
    assert {run.group for run in runs} == {ended.id}
    assert runs[0].summary["best_val_acc"] == 0.03
    assert 0.001 <= runs[0].config["lr"] <= 0.01
    assert runs[0].config["augment"]["flip"] is True
    assert [run.summary["state"] for run in runs] == ["complete", "pruned", "failed"]
    assert runs[2].summary["reason"] == "out of memory"


def test_a_second_sync_sends_nothing(ended: SweepEntry, server: StandIn) -> None:
    upload(ended)
    before = len(server.requests)
    assert set(upload(ended).values()) == {Fate.THERE}
    operations = {request.operation for request in server.requests[before:]}
    assert operations <= {"Sweep", "Runs"}
    assert len(server.sweeps) == 1


def test_an_interrupted_sync_resumes_where_it_stopped(ended: SweepEntry, server: StandIn) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(ended, say=stop)
    assert len(server.runs) == 1
    assert upload(ended) == {"0": Fate.THERE, "1": Fate.UPLOADED, "2": Fate.UPLOADED}


def test_a_run_that_is_there_in_part_is_completed(ended: SweepEntry, any_server: StandIn) -> None:
    upload(ended)
    run = any_server.runs[f"{ended.id}-0"]
    with any_server.store.changed:
        del run.history[1:]
        run.state, run.exit_code, run.summary = "crashed", None, {}
    assert upload(ended) == {"0": Fate.COMPLETED, "1": Fate.THERE, "2": Fate.THERE}
    assert steps(any_server, run.id) == [1, 2, 3]
    assert (run.state, run.summary["state"]) == ("finished", "complete")


def test_the_database_replaces_a_missing_history_file(ended: SweepEntry, server: StandIn) -> None:
    (trial_folder(ended.id, "0") / "history.jsonl").unlink()
    upload(ended)
    assert steps(server, f"{ended.id}-0") == [1, 2, 3]


def test_runs_keep_the_time_of_their_trials(ended: SweepEntry, any_server: StandIn) -> None:
    upload(ended)
    search = open_search(ended)
    record = search.records()[0]
    search.close()
    times = [row["_timestamp"] for row in any_server.runs[f"{ended.id}-0"].history if "val_acc" in row]
    assert record.started_at is not None and record.ended_at is not None
    assert all(record.started_at <= time <= record.ended_at for time in times)
    assert times == sorted(times)


def test_a_deleted_page_is_created_again(ended: SweepEntry, server: StandIn) -> None:
    upload(ended)
    server.delete_sweep(next(iter(server.sweeps)))
    for run in list(server.runs):
        server.delete_run(run)
    assert set(upload(ended).values()) == {Fate.UPLOADED}
    assert len(server.sweeps) == 1


def test_a_second_sync_at_the_same_time_is_refused(ended: SweepEntry, server: StandIn) -> None:
    lock = trial_folder(ended.id, "0").parents[1] / ".sync.lock"
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="under way"):
            upload(ended)


def test_a_running_trial_is_left_alone_and_the_run_of_a_killed_agent_is_rebuilt(
    sweep: SweepEntry, server: StandIn
) -> None:
    search = open_search(sweep)
    request = search.next_trial("cpu0")
    search.close()
    assert isinstance(request, TrialRequest)
    trained(sweep, request, 2)
    with (trial_folder(sweep.id, "0") / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as its trial process does
        assert upload(sweep) == {"0": Fate.RUNNING}
    assert upload(sweep) == {"0": Fate.UPLOADED}
    run = server.runs[f"{sweep.id}-0"]
    assert (run.state, run.summary["reason"]) == ("preempted", "its agent was killed")
    assert steps(server, run.id) == [1, 2]
