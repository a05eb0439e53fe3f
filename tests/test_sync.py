"""``fersweep sync`` against a server: what was trained unplugged becomes one sweep there, whole, once."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer_sweep.errors import StorageError
from fer_sweep.files import trial_folder
from fer_sweep.records import TrialOutcome, TrialRequest, TrialState
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.registry import create, open_search
from fer_sweep.sync import Fate, sync
from tests.support.processes import COMMAND, alive, descendants, until
from tests.support.scripted_search import TINY
from tests.support.standin.server import StandIn

PARAMETERS = {**{name: {"value": value} for name, value in TINY.items()}, "lr": {"min": 0.001, "max": 0.01}}
METRIC = {"name": "best_val_acc", "goal": "maximize"}


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


def bring_up(entry: SweepEntry) -> dict[str, Fate]:
    return dict(sync(entry, say=lambda line: None).fates)


def steps(server: StandIn, run: str) -> list[Any]:
    return [row.get("epoch") for row in server.runs[run].history if "val_acc" in row]


def test_every_run_is_on_the_server_whole_and_in_one_sweep(ended: SweepEntry, online: StandIn) -> None:
    assert bring_up(ended) == {"0": Fate.UPLOADED, "1": Fate.UPLOADED, "2": Fate.UPLOADED}
    (sweep,) = online.sweeps.values()
    assert (sweep.project, sweep.state) == ("unplugged", "FINISHED")
    assert sweep.config["controller"] == {"type": "local"}, "the server itself proposes nothing"
    assert sweep.run_ids == [f"{ended.id}-{n}" for n in range(3)]
    runs = [online.runs[run] for run in sweep.run_ids]
    assert [(run.state, run.exit_code) for run in runs] == [("finished", 0), ("finished", 0), ("failed", 1)]
    assert [steps(online, run) for run in sweep.run_ids] == [[1, 2, 3], [1, 2], [1]]
    assert {run.group for run in runs} == {ended.id}
    assert runs[0].summary["best_val_acc"] == 0.03
    assert 0.001 <= runs[0].config["lr"] <= 0.01
    assert runs[0].config["augment"]["flip"] is True
    assert [run.summary["state"] for run in runs] == ["complete", "pruned", "failed"]
    assert runs[2].summary["reason"] == "out of memory"


def test_a_second_sync_sends_nothing(ended: SweepEntry, online: StandIn) -> None:
    bring_up(ended)
    before = len(online.requests)
    assert set(bring_up(ended).values()) == {Fate.THERE}
    operations = {request.operation for request in online.requests[before:]}
    assert operations <= {"Sweep", "Runs"}
    assert len(online.sweeps) == 1


def test_an_interrupted_sync_goes_on(ended: SweepEntry, online: StandIn) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(ended, say=stop)
    assert len(online.runs) == 1
    assert bring_up(ended) == {"0": Fate.THERE, "1": Fate.UPLOADED, "2": Fate.UPLOADED}


def test_a_run_that_is_there_in_part_is_completed(ended: SweepEntry, online: StandIn) -> None:
    bring_up(ended)
    run = online.runs[f"{ended.id}-0"]
    with online.store.changed:
        del run.history[1:]
        run.state, run.exit_code, run.summary = "crashed", None, {}
    assert bring_up(ended) == {"0": Fate.COMPLETED, "1": Fate.THERE, "2": Fate.THERE}
    assert steps(online, run.id) == [1, 2, 3]
    assert (run.state, run.summary["state"]) == ("finished", "complete")


def test_the_database_stands_in_for_a_folder_that_is_gone(ended: SweepEntry, online: StandIn) -> None:
    (trial_folder(ended.id, "0") / "history.jsonl").unlink()
    bring_up(ended)
    assert steps(online, f"{ended.id}-0") == [1, 2, 3]


def test_runs_keep_their_time(ended: SweepEntry, online: StandIn) -> None:
    bring_up(ended)
    search = open_search(ended)
    record = search.records()[0]
    search.close()
    times = [row["_timestamp"] for row in online.runs[f"{ended.id}-0"].history if "val_acc" in row]
    assert record.started_at is not None and record.ended_at is not None
    assert all(record.started_at <= time <= record.ended_at for time in times)
    assert times == sorted(times)


def test_a_page_that_was_deleted_is_made_again(ended: SweepEntry, online: StandIn) -> None:
    bring_up(ended)
    online.delete_sweep(next(iter(online.sweeps)))
    for run in list(online.runs):
        online.delete_run(run)
    assert set(bring_up(ended).values()) == {Fate.UPLOADED}
    assert len(online.sweeps) == 1


def test_two_at_once_are_one_too_many(ended: SweepEntry, online: StandIn) -> None:
    lock = trial_folder(ended.id, "0").parents[1] / ".sync.lock"
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="under way"):
            bring_up(ended)


@pytest.mark.usefixtures("one_core")
def test_the_run_of_a_killed_agent_is_rebuilt_and_a_live_one_left_alone(
    sweep: SweepEntry, online: StandIn, tiny_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "sweep.yaml", "--search=optuna", "--set=epochs=5000", "--count=1", "--gpus=none"]
    monkeypatch.setenv("WANDB_MODE", "offline")
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        until(lambda: any(p.read_text().count("\n") >= 20 for p in Path(".fersweep").glob("sweeps/*/trials/0/*.jsonl")))
        family = {agent.pid} | descendants(agent.pid)
        live = subprocess.run([*COMMAND, "sync", "--json"], capture_output=True, text=True, check=True)
        assert json.loads(live.stdout)["sweeps"][0]["runs"] == {"0": "still running"}
        agent.kill()
    until(lambda: not any(alive(pid) for pid in family))
    done = subprocess.run([*COMMAND, "sync", "--json"], capture_output=True, text=True, check=True)
    (synced,) = json.loads(done.stdout)["sweeps"]
    assert synced["runs"] == {"0": "uploaded"}
    run = online.runs[f"{synced['sweep']}-0"]
    on_disk = (trial_folder(synced["sweep"], "0") / "history.jsonl").read_text().count("\n")
    assert steps(online, run.id) == list(range(1, on_disk + 1))
    assert (run.state, run.summary["reason"]) == ("preempted", "its agent was killed")


def test_offline_runs_synced_by_stock_wandb_are_the_same_runs(online: StandIn, tmp_path: Path) -> None:
    code = (
        "from fer_sweep.records import TrialOutcome, TrialState\n"
        "from fer_sweep.run_labels import RunLabels\n"
        "from fer_sweep.tracking import Tracker\n"
        "run = Tracker(mode='offline').start(RunLabels('n', 'g', project='faces', sweep_id='abcd1234'), {'lr': 0.1},"
        " run_id='s-0')\n"
        "run.log({'epoch': 1, 'val_acc': 0.5})\n"
        "run.finish(TrialOutcome(TrialState.COMPLETE))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    wandb = str(Path(sys.executable).with_name("wandb"))
    subprocess.run([wandb, "sync", str(folder)], check=True, capture_output=True)
    run = online.runs["s-0"]
    assert (run.sweep_id, run.group, run.project) == ("abcd1234", "g", "faces")
    assert steps(online, "s-0") == [1]
