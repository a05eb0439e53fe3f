"""What must hold after chaos: everything once, whole, and the same bits as without it."""

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

CLOCKED = ("seconds", "images_per_second", "peak_memory_mb")
"""What of a result and of a history line was measured with a clock, or of a process."""
_FILES = {"config.json", "history.jsonl", "best.safetensors", "result.json", "trial.log"}


@dataclass(frozen=True)
class Sweep:
    """What is to be looked at."""

    id: str
    home: Path
    seeds: Collection[int]
    """One configuration each."""
    epochs: int

    @property
    def folders(self) -> list[Path]:
        """One a trial."""
        trials = self.home / "sweeps" / self.id / "trials"
        return sorted(trials.iterdir()) if trials.is_dir() else []

    def states(self) -> list[str]:
        """The state of every trial that has been begun, as the database has it."""
        return [state for (state,) in self.query("SELECT state FROM fersweep_trials WHERE sweep_id = ?", self.id)]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.home / "sweeps.db", timeout=60.0)) as database:
            return database.execute(sql, values).fetchall()


@dataclass
class Verdict:
    """What was found; trials are named sweep/trial."""

    lost: set[str] = field(default_factory=set)
    """Trials that have no end, or not the right one."""
    doubled: set[str] = field(default_factory=set)
    """Trials of which something is there twice."""
    findings: list[str] = field(default_factory=list)
    """What is wrong, in sentences."""
    notes: list[str] = field(default_factory=list)
    """What is no more than untidy."""

    def lose(self, trial: str, why: str) -> None:
        self.lost.add(trial)
        self.findings.append(f"trial {trial}: {why}")

    def double(self, trial: str, why: str) -> None:
        self.doubled.add(trial)
        self.findings.append(f"trial {trial}: {why}")

    def check_epochs(self, trial: str, where: str, found: Sequence[int], epochs: int) -> None:
        """Each epoch once, in order."""
        again = sorted(epoch for epoch, times in Counter(found).items() if times > 1)
        missing = sorted(set(range(1, epochs + 1)) - set(found))
        if again:
            self.double(trial, f"{where} has epochs more than once: {again[:10]}")
        if missing:
            self.lose(trial, f"{where} lacks epochs: {missing[:10]} ({len(missing)} in all)")
        if not again and not missing and found != list(range(1, epochs + 1)):
            self.findings.append(f"trial {trial}: {where} has epochs out of order, or too many")


def check_trials(sweep: Sweep, trials: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    """Every configuration complete exactly once, by ``fersweep status``."""
    of_seed: dict[int, list[str]] = {seed: [] for seed in sweep.seeds}
    for trial in trials:
        name = f"{sweep.id}/{trial['id']}"
        of_seed.setdefault(trial["config"]["seed"], []).append(name)
        if trial["state"] != "complete":
            verdict.lose(name, f"is {trial['state']}: {trial['reason']}")
    for seed, names in of_seed.items():
        if not names:
            verdict.lose(f"{sweep.id}/(seed {seed})", "was never trained")
        for extra in names[1:]:
            verdict.double(extra, f"has the configuration of trial {names[0]}")


def check_folders(sweep: Sweep, verdict: Verdict) -> None:
    """Every trial's folder with one result and a history without gap or repeat, and nothing left over."""
    for folder in sweep.folders:
        name, files = f"{sweep.id}/{folder.name}", {path.name for path in folder.iterdir()} - {".lock"}
        if missing := _FILES - files:
            verdict.lose(name, f"lacks {', '.join(sorted(missing))}")
            continue
        epochs = [row["epoch"] for row in _history(folder / "history.jsonl")]
        verdict.check_epochs(name, "history.jsonl", epochs, sweep.epochs)
        if left := files - _FILES:
            verdict.notes.append(f"trial {name}: left over in its folder: {', '.join(sorted(left))}")


def check_database(sweep: Sweep, verdict: Verdict) -> None:
    """The database intact, with every trial complete and every epoch of it once."""
    for pragma in ("integrity_check", "foreign_key_check"):
        if (answer := sweep.query(f"PRAGMA {pragma}")) not in ([], [("ok",)]):
            verdict.findings.append(f"PRAGMA {pragma}: {answer}")
    names = {folder.name for folder in sweep.folders}
    trials = sweep.query("SELECT number, identity, state FROM fersweep_trials WHERE sweep_id = ?", sweep.id)
    reports = sweep.query("SELECT number, epoch FROM fersweep_reports WHERE sweep_id = ? ORDER BY epoch", sweep.id)
    for number, identity, state in trials:
        name = f"{sweep.id}/{number if str(number) in names else identity}"  # its run's id, where a server names it
        if state != "complete":
            verdict.lose(name, f"is {state} in the database")
        verdict.check_epochs(name, "the database", [epoch for n, epoch in reports if n == number], sweep.epochs)


def check_runs(sweep: Sweep, server: StandIn, verdict: Verdict) -> None:
    """On the server: one run a configuration, each epoch of it once, finished, and the sweep over."""
    if (state := server.sweeps[sweep.id].state) != "FINISHED":
        verdict.findings.append(f"sweep {sweep.id} is {state} on the server")
    runs = runs_of(sweep, server)
    for seed, times in Counter(run.config.get("seed") for run in runs).items():
        if times > 1:
            verdict.double(f"{sweep.id}/(seed {seed})", f"has {times} runs on the server")
    for run in runs:
        name = f"{sweep.id}/{run.id}"
        verdict.check_epochs(name, "its run on the server", _logged(run), sweep.epochs)
        if not is_whole(run, sweep.epochs):
            verdict.lose(name, f"on the server, {standing(run)}")


def runs_of(sweep: Sweep, server: StandIn) -> list[Run]:
    return [run for run in server.runs.values() if run.sweep_id == sweep.id]


def is_whole(run: Run, epochs: int) -> bool:
    """Whether the server has all of a run."""
    ended = (run.state, run.exit_code, run.summary.get("state"))
    return ended == ("finished", 0, "complete") and _logged(run) == list(range(1, epochs + 1))


def standing(run: Run) -> str:
    """What the server has of a run, in a line."""
    ended = f"{run.state} with exit code {run.exit_code}, summary {run.summary.get('state')}"
    return f"run {run.id} is {ended}, with {len(run.history)} lines"


def check_bits(sweeps: Sequence[Sweep], reference: Sweep, verdict: Verdict) -> int:
    """Trials of equal configuration, bit for bit but for what a clock measured; gives how many."""
    folders = [folder for sweep in sweeps for folder in sweep.folders if (folder / "result.json").exists()]
    ours = {_config(folder / "config.json")["seed"]: folder for folder in folders}
    compared = 0
    for theirs in reference.folders:
        if folder := ours.get(_config(theirs / "config.json")["seed"]):  # one without result is lost, as said before
            compared += 1
            for file, read in _SAME.items():
                if read(folder / file) != read(theirs / file):
                    verdict.findings.append(f"trial {folder.name}: {file} is not that of an undisturbed training")
    return compared


def _logged(run: Run) -> list[int]:
    return [row["epoch"] for row in run.history if "val_acc" in row]


def _config(path: Path) -> dict[str, Any]:
    return {key: value for key, value in json.loads(path.read_text()).items() if key not in CLOCKED}


def _history(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCKED} for row in rows]


_SAME: Mapping[str, Callable[[Path], object]] = {
    "config.json": _config,
    "result.json": _config,
    "history.jsonl": _history,
    "best.safetensors": Path.read_bytes,
}
