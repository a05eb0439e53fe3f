"""The files of paused trials on this host: how much disk they may take, and what is left of them in the end.

The search knows no files. It prunes paused trials when their sweep ends, wherever their checkpoints are; every agent
settles those of its own host.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from fer_sweep.files import (
    LAST_CHECKPOINT,
    PREVIOUS_CHECKPOINT,
    checkpoint_folder,
    remove_checkpoints,
    write_atomically,
)
from fer_sweep.records import TrialState
from fer_sweep.store.engine import Row
from fer_sweep.store.sweeps import record_of
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.training.history import read_history

DISK_SHARE = 0.25
"""Of the free disk space, their own included, what the checkpoints of a sweep's paused trials may take at most."""


def settle_pruned(sweep: Sweep) -> Sequence[str]:
    """Write the result.json of trials that were pruned while they were paused, and delete their checkpoints.

    Returns:
        The trials that have their result now.

    Raises:
        StorageError: The database or a trial's folder does not answer.
    """
    with sweep.ledger() as ledger:
        pruned = [row for row in ledger.all() if row["state"] == TrialState.PRUNED]
    settled = []
    for row in pruned:
        trial = sweep.trial_of(row)
        folder = sweep.trial_folder(trial)
        result = record_of(row, trial).result
        if result is not None and not (folder / "result.json").exists() and _epochs_in(folder) == result.epochs:
            write_atomically(folder / "result.json", result.model_dump_json(indent=2) + "\n")
            settled.append(trial)
        for place in _folders(sweep, trial):
            remove_checkpoints(place)
    return settled


def limit_disk(
    sweep: Sweep, *, free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> Sequence[str]:
    """Delete the checkpoints of the worst paused trials while all of them take more than DISK_SHARE of the disk.

    Args:
        sweep: The sweep.
        free: Free bytes on the disk of a folder.

    Returns:
        The trials that have lost theirs: they stay paused and are not resumed.

    Raises:
        StorageError: The database does not answer.
    """
    with sweep.ledger() as ledger:
        if _excess(sweep, ledger.paused(), free) <= 0:
            return []
    with sweep.ledger(write=True) as ledger:  # no trial is resumed meanwhile
        rows = sorted(ledger.paused(), key=lambda row: _worth(sweep, row))
        excess, deleted = _excess(sweep, rows, free), []
        for row in rows[:-1]:  # the best one is trained to the end
            if excess <= 0:
                break
            if size := _size(sweep, row):
                for place in _folders(sweep, trial := sweep.trial_of(row)):
                    remove_checkpoints(place)
                excess -= size
                deleted.append(trial)
    return deleted


def _epochs_in(folder: Path) -> int:
    """Epochs that this host has: the weights of one that has trained part of a trial are not those of its result."""
    return len(read_history(folder / "history.jsonl"))


def _excess(sweep: Sweep, paused: Sequence[Row], free: Callable[[Path], int]) -> float:
    """Bytes that the checkpoints of these trials take beyond their share."""
    taken = sum(_size(sweep, row) for row in paused)
    return taken - DISK_SHARE * (taken + free(sweep.folder)) if taken else 0.0


def _size(sweep: Sweep, row: Row) -> int:
    """Bytes of a trial's checkpoints on this host."""
    files = (
        folder / name
        for folder in _folders(sweep, sweep.trial_of(row))
        for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)
    )
    return sum(file.stat().st_size for file in files if file.is_file())


def _folders(sweep: Sweep, trial: str) -> set[Path]:
    return {sweep.trial_folder(trial), checkpoint_folder(sweep.id, trial)}


def _worth(sweep: Sweep, row: Row) -> float:
    """What a trial has reached, higher is better; infinitely bad before its first value."""
    value = next(iter(json.loads(row["objectives"] or "[]")), None)
    if value is None or not math.isfinite(value):
        return -math.inf
    return float(value if sweep.file.objectives[0].goal == "maximize" else -value)
