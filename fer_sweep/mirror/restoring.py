"""Restore a home from a mirror: completely or not at all, and never over newer sweeps."""

import contextlib
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_sweep.errors import InputError, NothingToDo, StorageError, writing
from fer_sweep.files import folder_beside, home, read_object
from fer_sweep.mirror.copying import DATABASE, NAME, Mark, folders, is_mirrored, name_home, read_mark, write_mark
from fer_sweep.store.backup import Standing, open_copy, release, standings
from fer_sweep.training.history import read_history

_Standings = Mapping[str, Mapping[int, Standing]]
"""Trials by sweep and number."""


@dataclass(frozen=True)
class Restored:
    """What was restored."""

    sweeps: Sequence[str]
    """Their ids, by name."""
    copied: float
    """When the last copy to the mirror was completed: Unix time, seconds; 0 for never."""
    trials: int
    """Of all sweeps."""
    unfinished: int
    """Of these, the ones that an agent resumes."""
    set_aside: Path | None
    """Where the former home is; None if there was none."""


def restore(folder: Path, *, force: bool = False) -> Restored:
    """Replace this home by the content of a mirror, and release the leases of its running trials.

    Args:
        folder: The mirror, which this home then owns.
        force: Also if this home has sweeps or trials that the mirror lacks; they are set aside, not deleted.

    Raises:
        NothingToDo: The folder is no mirror, or contains no sweep.
        InputError: This home has other or newer sweeps, or an agent uses it.
        StorageError: The mirror is damaged, or this home cannot be written.
    """
    folder = folder.absolute()
    mark = read_mark(folder)
    here = home()
    with writing(here), folder_beside(here, "restoring-") as staging:
        theirs = _copy_database(folder, staging)
        kept = _copy_sweeps(folder, staging, theirs)
        if not kept:
            raise NothingToDo(f"the mirror in {folder} contains no sweep", hint="create one: fersweep create FILE")
        _check_home(here, folder, theirs, kept, force=force)

        def history_of(sweep: str, trial: str) -> Sequence[Mapping[str, float]]:
            with contextlib.suppress(StorageError):  # the trial replaces a damaged file
                return read_history(staging / "sweeps" / sweep / "trials" / trial / "history.jsonl")
            return ()

        unfinished = release(staging / DATABASE, history_of) if theirs else 0
        name = name_home(staging)
        set_aside = _swap(staging, here)
    # A read-only mirror keeps its owner: no home can write to it.
    with contextlib.suppress(StorageError):
        write_mark(folder, Mark(name, mark.copied))
    trials = sum(len(theirs.get(sweep, {})) for sweep in kept)
    return Restored(kept, mark.copied, trials, unfinished, set_aside)


def _copy_database(folder: Path, staging: Path) -> _Standings:
    if not (folder / DATABASE).is_file():
        return {}
    shutil.copyfile(folder / DATABASE, staging / DATABASE)
    open_copy(staging / DATABASE)
    return standings(staging / DATABASE)


def _copy_sweeps(folder: Path, staging: Path, known: _Standings) -> list[str]:
    """Copy the trials in the database: a trial started after its copy is proposed again, maybe with other values."""
    kept = []
    _copy_files(folder, staging)
    for sweep in folders(folder / "sweeps"):
        entry = read_object(sweep / "sweep.json")
        in_database = entry.get("storage") is None
        if not entry or (in_database and sweep.name not in known):
            continue
        kept.append(sweep.name)
        target = staging / "sweeps" / sweep.name
        for trial in folders(sweep / "trials"):
            is_numbered = in_database and entry.get("search") == "optuna"
            if not is_numbered or (trial.name.isdecimal() and int(trial.name) in known[sweep.name]):
                _copy_files(trial, target / "trials" / trial.name)
        _copy_files(sweep, target)
    return kept


def _copy_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in filter(is_mirrored, source.iterdir()):
        shutil.copy2(path, target / path.name)  # with its times, by which the next copy to the mirror skips it


def _check_home(here: Path, folder: Path, theirs: _Standings, kept: Sequence[str], *, force: bool) -> None:
    """Check that no agent uses this home, and unless forced that the mirror has all that it has."""
    ours = standings(here / DATABASE) if (here / DATABASE).is_file() else {}
    if busy := [f"{sweep}/{t.number}" for sweep, trials in ours.items() for t in trials.values() if t.is_leased]:
        raise InputError(
            f"an agent is running in {here} (trial {', '.join(busy[:5])})",
            hint="stop it, or set FERSWEEP_HOME to another folder",
        )
    ahead = {
        sweep
        for sweep, trials in ours.items()
        if any(trial.is_ahead_of(theirs.get(sweep, {}).get(number)) for number, trial in trials.items())
    }
    present = {*ours, *(path.name for path in folders(here / "sweeps"))}
    lost = sorted(ahead | (present - set(kept)))
    if lost and not force:
        raise InputError(
            f"the mirror in {folder} lacks trials or sweeps of {here}: sweep {', '.join(lost[:5])}",
            hint="continue with this home, set FERSWEEP_HOME to another folder, or set this home aside with force",
        )


def _swap(staging: Path, here: Path) -> Path | None:
    """Put the new home in place; returns where the former one is now, if it had any content."""
    if not here.exists():
        staging.rename(here)
        return None
    has_content = any(path.name != NAME and not path.name.startswith(".") for path in here.iterdir())
    aside = here.parent / f"{here.name}.before-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    here.rename(aside)
    try:
        staging.rename(here)
    except OSError:
        aside.rename(here)
        raise
    if has_content:
        return aside
    shutil.rmtree(aside, ignore_errors=True)
    return None
