"""From a mirror back to a home: all of it or nothing, and never over something newer."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_sweep.errors import InputError, NothingToDo, StorageError, cannot_write
from fer_sweep.files import home, read_object
from fer_sweep.mirror.mark import DATABASE, MARK, NAME, new_name, read_mark, write_home_name, write_mark
from fer_sweep.store.backup import Standing, release, standings, take_up
from fer_sweep.training.history import read_history

_Standings = Mapping[str, Mapping[int, Standing]]


@dataclass(frozen=True)
class Restored:
    """What a mirror gave back."""

    sweeps: Sequence[str]
    """Their ids, by name."""
    copied: float
    """When the mirror was last brought up to date: Unix time, seconds."""
    trials: int
    """In all of them."""
    going_on: int
    """Of them, those that an agent may take up at once."""
    set_aside: Path | None
    """Where the home went that was here before."""


def restore(folder: Path, *, force: bool = False) -> Restored:
    """Make this home what a mirror holds; its running trials are given up, since their machine is gone.

    Args:
        folder: The mirror, which is then this home's.
        force: Also if this home has something that the mirror lacks; it is set aside, not deleted.

    Raises:
        NothingToDo: The folder is no mirror, or holds no sweep.
        InputError: This home has other or newer sweeps, or an agent works in it.
        StorageError: The mirror is damaged, or this home cannot be written.
    """
    folder = folder.absolute()
    mark = read_mark(folder)
    here = home()
    staging = here.parent / f".{here.name}.restoring-{secrets.token_hex(4)}"
    try:
        with _explained(here):
            staging.mkdir(parents=True)
            theirs = _bring_database(folder, staging)
            kept = _bring_sweeps(folder, staging, theirs)
        if not kept:
            raise NothingToDo(f"the mirror in {folder} holds no sweep", hint="create one here: fersweep create FILE")
        holds_something = _check_home(here, folder, theirs, kept, force=force)
        going_on = release(staging / DATABASE, _Histories(staging)) if (staging / DATABASE).exists() else 0
        name = new_name()
        write_home_name(staging, name, restored_from=mark.home)
        with _explained(here):
            set_aside = _swap(staging, here)
            if set_aside is not None and not holds_something:
                shutil.rmtree(set_aside, ignore_errors=True)
                set_aside = None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    # A mirror that may only be read stays as it is: it needs no guarding.
    with contextlib.suppress(StorageError):
        write_mark(folder, home=name, copied=mark.copied)
    trials = sum(len(theirs.get(sweep, {})) for sweep in kept)
    return Restored(kept, mark.copied, trials, going_on, set_aside)


class _Histories:
    """The epochs in the files that were copied."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, sweep: str, trial: str) -> Sequence[Mapping[str, float]]:
        path = self._root / "sweeps" / sweep / "trials" / trial / "history.jsonl"
        with contextlib.suppress(StorageError):  # a spoilt one is begun anew by the trial
            return read_history(path)
        return ()


def _bring_database(folder: Path, staging: Path) -> _Standings:
    if not (folder / DATABASE).is_file():
        return {}
    shutil.copyfile(folder / DATABASE, staging / DATABASE)
    take_up(staging / DATABASE)
    return standings(staging / DATABASE)


def _bring_sweeps(folder: Path, staging: Path, known: _Standings) -> list[str]:
    """Copy what the database knows of: a trial begun after it was copied will be proposed anew, perhaps otherwise."""
    kept = []
    _copy_files(folder, staging)
    for sweep in _folders(folder / "sweeps"):
        entry = read_object(sweep / "sweep.json")
        in_database = entry.get("storage") is None
        if not entry or (in_database and sweep.name not in known):
            continue
        kept.append(sweep.name)
        target = staging / "sweeps" / sweep.name
        for trial in _folders(sweep / "trials"):
            is_numbered = in_database and entry.get("search") == "optuna"
            if not is_numbered or (trial.name.isdecimal() and int(trial.name) in known[sweep.name]):
                _copy_files(trial, target / "trials" / trial.name)
        _copy_files(sweep, target)
    return kept


def _copy_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        skipped = path.name.startswith((".", DATABASE)) or path.name in (MARK, NAME)
        if path.is_file() and not path.is_symlink() and not skipped:
            shutil.copyfile(path, target / path.name)
            # Kept, so that the first copy back need not copy all of it.
            status = path.stat()
            os.utime(target / path.name, ns=(status.st_atime_ns, status.st_mtime_ns))


def _check_home(here: Path, folder: Path, theirs: _Standings, kept: Sequence[str], *, force: bool) -> bool:
    """See that nothing would be lost; whether there is anything here at all."""
    ours = standings(here / DATABASE) if (here / DATABASE).is_file() else {}
    if busy := [f"{sweep}/{t.number}" for sweep, trials in ours.items() for t in trials.values() if t.in_hand]:
        raise InputError(
            f"an agent works in {here} (trial {', '.join(busy[:5])})",
            hint="end it, or set FERSWEEP_HOME to another folder",
        )
    ahead = {
        sweep
        for sweep, trials in ours.items()
        if any(trial.is_ahead_of(theirs.get(sweep, {}).get(number)) for number, trial in trials.items())
    }
    present = {*ours, *(path.name for path in _folders(here / "sweeps"))}
    lost = sorted(ahead | (present - set(kept)))
    if lost and not force:
        raise InputError(
            f"{here} has what the mirror in {folder} lacks: sweep {', '.join(lost[:5])}",
            hint="go on with what is here, set FERSWEEP_HOME to another folder, or add --force to set it aside",
        )
    others = here.is_dir() and any(path.name != NAME and not path.name.startswith(".") for path in here.iterdir())
    return bool(present) or others


def _swap(staging: Path, here: Path) -> Path | None:
    """Put the new home in place; where the old one is now, if there was one."""
    if not here.exists():
        staging.rename(here)
        return None
    aside = here.parent / f"{here.name}.before-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    here.rename(aside)
    try:
        staging.rename(here)
    except OSError:
        aside.rename(here)
        raise
    return aside


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        for path in sorted(parent.iterdir()):
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield path


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error
