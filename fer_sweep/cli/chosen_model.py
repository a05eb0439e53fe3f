"""Which trained model a command means: a sweep's winner, a trial of it, or what is in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer_sweep.errors import InputError

if TYPE_CHECKING:
    from fer_sweep.search.entries import SweepEntry
    from fer_sweep.selection import Candidate


@dataclass(frozen=True)
class ChosenModel:
    """A trained model, found."""

    name: str
    """SWEEP/TRIAL, or its folder."""
    folder: Path
    """With its weights and config.json."""
    sweep_folder: Path
    """Of the sweep it comes from; its own folder where it comes from none."""
    choice: "tuple[SweepEntry, Candidate] | None"
    """The sweep and the trial it is; None for a folder."""


def chosen_model(sweep: str | None, trial: str | None, folder: Path | None) -> ChosenModel:
    """The model that the arguments of a command mean.

    Args:
        sweep: A sweep; None for the one searched last.
        trial: This trial of it; None for its winner.
        folder: The folder of a trial, in place of both.

    Raises:
        InputError: A folder and a sweep are given, there is no such sweep, trial or folder, or the model is elsewhere.
        NothingToDo: There is no sweep yet, or none of its trials has a result.
    """
    if folder is None:
        return _of_sweep(sweep, trial)
    if sweep is not None or trial is not None:
        raise InputError(f"--folder {folder} is in place of a sweep and its trial", hint="give one or the other")
    if not folder.is_dir():
        raise InputError(f"--folder {folder}: no such folder", hint="the folder of a trial, with its best.safetensors")
    return ChosenModel(str(folder.resolve()), folder, folder, None)


def _of_sweep(sweep: str | None, trial: str | None) -> ChosenModel:
    # Only here: the search takes longer to import than a folder's model needs.
    from fer_sweep.choosing import chosen
    from fer_sweep.files import sweep_folder, trial_folder
    from fer_sweep.search.confirmations import last_searched
    from fer_sweep.search.registry import find

    entry = last_searched() if sweep is None else find(sweep)
    candidate = chosen(entry, trial)
    folder = trial_folder(entry.id, candidate.record.trial_id)
    if not folder.is_dir():
        raise InputError(
            f"the model of trial {candidate.name} is with the host that trained it",
            hint="run this there, or bring the trial's folder here and give it with --folder",
        )
    return ChosenModel(candidate.name, folder, sweep_folder(entry.id), (entry, candidate))
