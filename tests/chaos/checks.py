"""What must hold after chaos: everything once, whole, and the same bits as without it."""

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

_TIMINGS = {"seconds", "images_per_second", "peak_memory_mb"}
_FILES = {"config.json", "history.jsonl", "best.safetensors", "result.json", "trial.log"}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What is to be looked at."""

    id: str
    home: Path
    seeds: Sequence[int]
    """One configuration each."""
    epochs: int
    in_turns: bool = False
    """Its trials may be pruned while they are paused."""

    @property
    def folders(self) -> list[Path]:
        """One a trial."""
        trials = self.home / "sweeps" / self.id / "trials"
        return sorted(trials.iterdir()) if trials.is_dir() else []

    @property
    def ends(self) -> Collection[str]:
        """The states in which its trials may end."""
        return ("complete", "pruned") if self.in_turns else ("complete",)

    def states(self) -> list[str]:
        """The state of every trial that has been begun, as the database has it."""
        return [state for (state,) in self.query("SELECT state FROM fersweep_trials WHERE sweep_id = ?", self.id)]

    def disturbed(self) -> list[Path]:
        """The folders of the trials that took more than one attempt."""
        sql = "SELECT number, identity FROM fersweep_trials WHERE sweep_id = ? AND attempt > 1"
        names = {str(name) for row in self.query(sql, self.id) for name in row}  # a server's trials have its runs' ids
        return [folder for folder in self.folders if folder.name in names]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.home / "sweeps.db", timeout=60.0)) as database:
            return database.execute(sql, values).fetchall()


def findings(sweep: Sweep, status: Sequence[Row], server: StandIn | None) -> Iterator[str]:
    """What is wrong with a sweep, in sentences.

    Args:
        sweep: The sweep.
        status: Its trials, by ``fersweep status``.
        server: The W&B server that searches it, if one does.
    """
    yield from _in_status(sweep, status)
    yield from _in_folders(sweep)
    yield from _in_database(sweep)
    if server is not None:
        yield from _on_server(sweep, server)


def _in_status(sweep: Sweep, status: Sequence[Row]) -> Iterator[str]:
    """Every configuration complete exactly once."""
    times = Counter(trial["config"]["seed"] for trial in status)
    for seed in {*sweep.seeds, *times}:
        if times[seed] != (seed in sweep.seeds):
            yield f"the configuration with seed {seed} was trained as {times[seed]} trials"
    for trial in status:
        if trial["state"] not in sweep.ends:
            yield f"trial {trial['id']} is {trial['state']}: {trial['reason']}"
    best = max(status, key=lambda trial: trial["metrics"].get("best_val_acc", 0.0), default=None)
    if best is not None and not any(
        trial["state"] == "complete" and trial["metrics"]["best_val_acc"] >= best["metrics"]["best_val_acc"]
        for trial in status
    ):
        yield f"trial {best['id']} is the best and {best['state']}"


def _in_folders(sweep: Sweep) -> Iterator[str]:
    """Every trial's folder with one result and a history without gap or repeat."""
    for folder in sweep.folders:
        if missing := _FILES - {path.name for path in folder.iterdir()}:
            yield f"trial {folder.name} lacks {', '.join(sorted(missing))}"
        else:
            found = [row["epoch"] for row in history(folder)]
            yield from _in_epochs(f"history.jsonl of trial {folder.name}", found, sweep, epochs_of(folder))
        if left := [path.name for path in folder.glob("*.ckpt")]:
            yield f"trial {folder.name} still has {', '.join(left)}"


def _in_database(sweep: Sweep) -> Iterator[str]:
    """The database intact, with every trial complete and every epoch of it once."""
    for pragma in ("integrity_check", "foreign_key_check"):
        if (answer := sweep.query(f"PRAGMA {pragma}")) not in ([], [("ok",)]):
            yield f"PRAGMA {pragma}: {answer}"
    trials = sweep.query("SELECT number, state FROM fersweep_trials WHERE sweep_id = ?", sweep.id)
    reports = sweep.query("SELECT number, epoch FROM fersweep_reports WHERE sweep_id = ? ORDER BY epoch", sweep.id)
    for number, state in trials:
        if state not in sweep.ends:
            yield f"trial number {number} is {state} in the database"
        found = [epoch for trial, epoch in reports if trial == number]
        last = sweep.epochs if state == "complete" else len(found)
        yield from _in_epochs(f"the database's trial number {number}", found, sweep, last)


def _on_server(sweep: Sweep, server: StandIn) -> Iterator[str]:
    """One run a configuration, each epoch of it once, finished, and the sweep over."""
    if (state := server.sweeps[sweep.id].state) != "FINISHED":
        yield f"sweep {sweep.id} is {state} on the server"
    runs = runs_of(sweep, server)
    for seed, times in Counter(run.config.get("seed") for run in runs).items():
        if times > 1:
            yield f"the configuration with seed {seed} has {times} runs on the server"
    yield from (f"run {run.id} on the server is {standing(run)}" for run in runs if not is_whole(run, sweep))


def epochs_of(folder: Path) -> int:
    """Epochs of a trial's result; 0 if it has none."""
    result = folder / "result.json"
    return int(_object(result)["epochs"]) if result.exists() else 0


def _in_epochs(where: str, found: Sequence[int], sweep: Sweep, last: int) -> Iterator[str]:
    """Each epoch up to the last once, in order; the last one is the configuration's unless trials may be pruned."""
    last = last if sweep.in_turns else sweep.epochs
    if found != list(range(1, last + 1)):
        again = sorted(epoch for epoch, times in Counter(found).items() if times > 1)
        missing = sorted(set(range(1, last + 1)) - set(found))
        yield f"{where} lacks epochs {missing}, has {again} more than once, or has them out of order"


def runs_of(sweep: Sweep, server: StandIn) -> list[Run]:
    return [run for run in server.runs.values() if run.sweep_id == sweep.id]


def is_whole(run: Run, sweep: Sweep) -> bool:
    """Whether the server has all of a run."""
    ended = (run.state, run.exit_code, run.summary.get("state"))
    return ended == ("finished", 0, "complete") and _logged(run) == list(range(1, sweep.epochs + 1))


def standing(run: Run) -> str:
    """What the server has of a run."""
    return f"{run.state} with exit code {run.exit_code}, {run.summary.get('state')}, with epochs {_logged(run)}"


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """How two trials of one configuration differ, but for what a clock measured."""
    readers = {"config.json": _object, "result.json": _object, "best.safetensors": Path.read_bytes}
    same = {name: read(ours / name) == read(theirs / name) for name, read in readers.items()}
    same["history.jsonl"] = history(ours) == history(theirs)
    yield from (
        f"{name} of trial {ours.name} is not that without faults" for name, is_same in same.items() if not is_same
    )


def history(folder: Path) -> list[Row]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [_timeless(json.loads(line)) for line in lines]


def _object(path: Path) -> Row:
    return _timeless(json.loads(path.read_text()))


def _timeless(values: Row) -> Row:
    return {name: value for name, value in values.items() if name not in _TIMINGS}


def _logged(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]
