"""What must hold after chaos: everything once, whole, and the same bits as without it."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.standin.server import StandIn
from tests.support.standin.state import Run

CLOCKED = ("seconds", "images_per_second", "peak_memory_mb")
"""What of a result and of a history line was measured with a clock, or of a process."""
_FILES = {"config.json", "history.jsonl", "best.safetensors", "result.json", "trial.log"}


@dataclass
class Verdict:
    """What was found."""

    lost: set[str] = field(default_factory=set)
    """Trials that have no end, or not the right one."""
    doubled: set[str] = field(default_factory=set)
    """Trials of which something is there twice."""
    findings: list[str] = field(default_factory=list)
    """What is wrong, in sentences."""
    notes: list[str] = field(default_factory=list)
    """What is no more than untidy."""
    left_to_sync: int = 0
    """Runs that only ``fersweep sync`` made whole on the server."""

    def lose(self, trial: str, why: str) -> None:
        self.lost.add(trial)
        self.findings.append(f"trial {trial}: {why}")

    def double(self, trial: str, why: str) -> None:
        self.doubled.add(trial)
        self.findings.append(f"trial {trial}: {why}")


@dataclass(frozen=True)
class Sweep:
    """What is to be looked at."""

    id: str
    home: Path
    seeds: Collection[int]
    """One configuration each."""
    epochs: int

    @property
    def trials(self) -> Path:
        return self.home / "sweeps" / self.id / "trials"


def check_trials(sweep: Sweep, trials: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    """Every configuration complete exactly once, by ``fersweep status``."""
    of_seed: dict[int, list[str]] = {seed: [] for seed in sweep.seeds}
    for trial in trials:
        of_seed.setdefault(trial["config"]["seed"], []).append(trial["id"])
        if trial["state"] != "complete":
            verdict.lose(trial["id"], f"is {trial['state']}: {trial['reason']}")
    for seed, ids in of_seed.items():
        if not ids:
            verdict.lose(f"(seed {seed})", "was never trained")
        for extra in ids[1:]:
            verdict.double(extra, f"has the configuration of trial {ids[0]}")


def check_folders(sweep: Sweep, verdict: Verdict) -> None:
    """Every trial's folder with one result and a history without gap or repeat, and nothing left over."""
    for folder in sorted(sweep.trials.iterdir()):
        names = {path.name for path in folder.iterdir()} - {".lock"}
        if missing := _FILES - names:
            verdict.lose(folder.name, f"lacks {', '.join(sorted(missing))}")
            continue
        epochs = [row["epoch"] for row in _history(folder / "history.jsonl")]
        check_epochs(folder.name, "history.jsonl", epochs, sweep.epochs, verdict)
        if left := names - _FILES:
            verdict.notes.append(f"trial {folder.name}: left over in its folder: {', '.join(sorted(left))}")


def check_database(sweep: Sweep, verdict: Verdict) -> None:
    """The database intact, with every trial complete and every epoch of it once."""
    with sqlite3.connect(sweep.home / "sweeps.db") as database:
        for pragma in ("integrity_check", "foreign_key_check"):
            answer = database.execute(f"PRAGMA {pragma}").fetchall()
            if answer not in ([], [("ok",)]):
                verdict.findings.append(f"PRAGMA {pragma}: {answer}")
        rows = database.execute(
            "SELECT number, identity, state FROM fersweep_trials WHERE sweep_id = ?", [sweep.id]
        ).fetchall()
        for number, identity, state in rows:
            if state != "complete":
                verdict.lose(name(sweep, number, identity), f"is {state} in the database")
            epochs = database.execute(
                "SELECT epoch FROM fersweep_reports WHERE sweep_id = ? AND number = ? ORDER BY epoch",
                [sweep.id, number],
            ).fetchall()
            found = [epoch for (epoch,) in epochs]
            check_epochs(name(sweep, number, identity), "the database", found, sweep.epochs, verdict)
    database.close()


def name(sweep: Sweep, number: int, identity: str) -> str:
    """A trial's name: its number, or its run's id where a server names it."""
    return str(number) if (sweep.trials / str(number)).is_dir() else identity


def check_epochs(trial: str, where: str, found: Sequence[int], epochs: int, verdict: Verdict) -> None:
    """Each epoch once, in order."""
    if found == list(range(1, epochs + 1)):
        return
    again = sorted(epoch for epoch, times in Counter(found).items() if times > 1)
    missing = sorted(set(range(1, epochs + 1)) - set(found))
    if again:
        verdict.double(trial, f"{where} has epochs more than once: {again[:10]}")
    if missing:
        verdict.lose(trial, f"{where} lacks epochs: {missing[:10]} ({len(missing)} in all)")
    if not again and not missing:
        verdict.findings.append(f"trial {trial}: {where} has epochs out of order")


def whole(run: Run, epochs: int) -> bool:
    """Whether the server has all of a run."""
    found = [row["epoch"] for row in run.history if "val_acc" in row]
    return (
        (run.state, run.exit_code) == ("finished", 0)
        and run.summary.get("state") == "complete"
        and found == list(range(1, epochs + 1))
    )


def standing(run: Run) -> str:
    """What the server has of a run, in a line."""
    ended = f"{run.state} with exit code {run.exit_code}, summary {run.summary.get('state')}"
    return f"run {run.id} is {ended}, with {len(run.history)} lines"


def check_runs(sweep: Sweep, server: StandIn, verdict: Verdict) -> None:
    """On the server: one run a configuration, each epoch of it once, finished, and the sweep over."""
    if server.sweeps[sweep.id].state != "FINISHED":
        verdict.findings.append(f"the sweep is {server.sweeps[sweep.id].state} on the server")
    of_seed = Counter(run.config.get("seed") for run in server.runs.values())
    for seed, times in of_seed.items():
        if times > 1:
            verdict.double(f"(seed {seed})", f"has {times} runs on the server")
    for run in server.runs.values():
        found = [row["epoch"] for row in run.history if "val_acc" in row]
        check_epochs(run.id, "its run on the server", found, sweep.epochs, verdict)
        if not whole(run, sweep.epochs):
            verdict.lose(run.id, f"on the server, {standing(run)}")


def check_bits(sweep: Sweep, reference: Sweep, verdict: Verdict) -> int:
    """Trials of equal configuration in two sweeps, bit for bit but for what a clock measured; gives how many."""
    ours = {_config(folder)["seed"]: folder for folder in sweep.trials.iterdir() if (folder / "result.json").exists()}
    compared = 0
    for theirs in reference.trials.iterdir():
        folder = ours.get(_config(theirs)["seed"])
        if folder is None:
            continue
        compared += 1
        if _config(folder) != _config(theirs):
            verdict.findings.append(f"trial {folder.name}: the reference has another configuration")
        for file, read in (("result.json", _result), ("history.jsonl", _history)):
            if read(folder / file) != read(theirs / file):
                verdict.findings.append(f"trial {folder.name}: {file} is not that of an undisturbed training")
        if (folder / "best.safetensors").read_bytes() != (theirs / "best.safetensors").read_bytes():
            verdict.findings.append(f"trial {folder.name}: best.safetensors is not that of an undisturbed training")
    return compared


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def _result(path: Path) -> dict[str, Any]:
    return _without_clock(json.loads(path.read_text()))


def _history(path: Path) -> list[dict[str, Any]]:
    return [_without_clock(json.loads(line)) for line in path.read_text().splitlines()]


def _without_clock(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in CLOCKED}
