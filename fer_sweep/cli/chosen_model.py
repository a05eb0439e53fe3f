"""Which trained model a command means: a sweep's winner, a trial of it, or what is in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer_sweep.errors import InputError

if TYPE_CHECKING:
    from fer_sweep.selection import Confirmed


@dataclass(frozen=True)
class ChosenModel:
    """A trained model, found."""

    name: str
    """SWEEP/TRIAL, or its folder."""
    folder: Path
    """With its weights and config.json."""
    sweep_folder: Path
    """Of the sweep it comes from; its own folder where it comes from none."""
    sweep: str | None = None
    """The sweep that was searched; None for a folder, and for a trial of a confirmation."""
    confirmed: "Confirmed | None" = None
    """What further seeds of it came to so far."""


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
    return ChosenModel(str(folder.resolve()), folder, folder)


def _of_sweep(sweep: str | None, trial: str | None) -> ChosenModel:
    # Only here: the search takes longer to import than a folder's model needs.
    from fer_sweep.sweeps import last_searched, open_sweep
    from fer_sweep.sweeps.choosing import chosen, confirmed

    with last_searched() if sweep is None else open_sweep(sweep) as opened:
        candidate = chosen(opened, trial)
        folder = opened.trial_folder(candidate.record.trial_id)
        if not folder.is_dir():
            raise InputError(
                f"the model of trial {candidate.name} is on the host that trained it",
                hint="run this there, or copy the trial's folder here and give it with --folder",
            )
        searched = opened.id if opened.entry.confirms is None else None
        return ChosenModel(candidate.name, folder, opened.folder, searched, confirmed(opened, candidate))
