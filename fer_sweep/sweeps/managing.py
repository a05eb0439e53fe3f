"""All sweeps of this home at a glance, the agents that train one, and deleting sweeps."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_sweep import owners
from fer_sweep.errors import FersweepError, StorageError
from fer_sweep.files import checkpoint_folder, read_object
from fer_sweep.records import TrialRecord
from fer_sweep.store.engine import NothingCreated
from fer_sweep.store.sweeps import delete_sweep, refuse_live
from fer_sweep.sweeps.entries import SweepEntry, scan
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.sweeps.opening import open_entry
from fer_sweep.wandb_client.account import has_login, tracking_mode


@dataclass(frozen=True)
class Overview:
    """One sweep among those of this home."""

    id: str
    entry: SweepEntry | None = None
    """None for a sweep that cannot be read; ``error`` says why."""
    state: str | None = None
    """None if it is not known: a W&B server searches the sweep and does not answer."""
    agents: int = 0
    """Agents that train a trial, and those of this host that wait for one."""
    trials: int = 0
    """Those that have started."""
    ended: int = 0
    planned: int | None = None
    """The largest number of trials; None if unlimited."""
    sampler: str | None = None
    """The algorithm of an embedded search."""
    best_val_acc: float | None = None
    data: tuple[str, ...] = ()
    """Data sets that its trials may ask for."""
    error: str | None = None


def overviews() -> Iterator[Overview]:
    """Every sweep of this home, newest first, and last those whose sweep.json cannot be read.

    A W&B server that does not answer is asked only once.
    """
    entries, unreadable = scan()
    ask_server = has_login() and tracking_mode() == "online"
    for entry in reversed(entries):
        try:
            with open_entry(entry) as sweep:
                found = _overview(sweep, ask_server)
        except FersweepError as error:
            found = Overview(entry.id, entry, error=str(error))
        else:
            ask_server = ask_server and found.state is not None
        yield found
    for name, reason in unreadable.items():
        yield Overview(name, error=str(reason))


def _overview(sweep: Sweep, ask_server: bool) -> Overview:
    state, trials = sweep.glance(ask_server=ask_server)
    return Overview(
        sweep.id,
        sweep.entry,
        state,
        len(live_agents(sweep)),
        len(trials),
        sum(trial.state.has_ended for trial in trials),
        sweep.planned,
        sweep.sampler,
        best_of(trials),
        tuple(sweep.data.names),
    )


def best_of(trials: Sequence[TrialRecord]) -> float | None:
    """The best validation accuracy of some trials; None without a result."""
    return max((trial.result.best_val_acc for trial in trials if trial.result is not None), default=None)


@dataclass(frozen=True)
class Agents:
    """The agents on a sweep, each by its owner name."""

    training: frozenset[str]
    """Those with a lease on a trial, as far as the sweep's database knows them."""
    waiting: frozenset[str]
    """Those of this host without one, such as in a paused sweep; others are not known."""

    def __len__(self) -> int:
        return len(self.training) + len(self.waiting)


def live_agents(sweep: Sweep) -> Agents:
    """The agents that train trials of a sweep or wait for one."""
    with sweep.ledger() as ledger:
        training = frozenset(ledger.live_owners(sweep.database.clock()))
    described = {str(read_object(file).get("owner", "")) for file in (sweep.folder / "agents").glob("*.json")}
    here = {owner for owner in described if owner.startswith(owners.on_this_host()) and not owners.is_dead(owner)}
    return Agents(training, frozenset(here - training))


def host_of_trial(sweep: Sweep, trial_id: str) -> str | None:
    """The host that last trained a trial, if it is another one or unknown; None for this host."""
    with sweep.ledger() as ledger:
        rows = [row for row in ledger.all() if sweep.trial_of(row) == trial_id]
    if not rows:
        return "a host with another database"
    owner = str(rows[0]["owner"])
    return None if owner.startswith(owners.on_this_host()) else owners.host_of(owner)


@dataclass(frozen=True)
class Deleted:
    """A sweep that was deleted."""

    id: str
    name: str | None
    bytes: int
    """Size of its files."""
    folders: tuple[Path, ...]
    page: str | None
    """The address of its page on W&B, which stays."""


def with_confirmations(entries: Sequence[SweepEntry]) -> list[SweepEntry]:
    """Some sweeps, each followed by those that train its trials with further seeds: these are of no use without it."""
    found, known = {}, scan()[0]
    for entry in entries:
        theirs = [other for other in known if (other.confirms or "").rpartition("/")[0] == entry.id]
        found.update({each.id: each for each in [entry, *theirs]})
    return list(found.values())


def delete(entries: Sequence[SweepEntry]) -> Iterator[Deleted]:
    """Delete sweeps: their trials in the database, their folders and their checkpoints; pages on W&B stay.

    Raises:
        InputError: An agent works on one of them; none is deleted.
        StorageError: A database or a folder cannot be written; a repetition deletes what is left.
    """
    for entry in entries:
        with open_entry(entry) as sweep:
            if _has_database(sweep):
                agents = live_agents(sweep)
                refuse_live([*agents.training, *agents.waiting], sweep.id)
    for entry in entries:
        with open_entry(entry) as sweep:
            if _has_database(sweep):
                delete_sweep(sweep.database, sweep.id)
            page = entry.url or read_object(sweep.folder / "wandb.json").get("url")
            folders = tuple(dict.fromkeys(f for f in (_checkpoints(sweep), sweep.folder) if f.is_dir()))
            size = sum(_size(folder) for folder in folders)
            for folder in folders:
                _remove(folder)
        yield Deleted(entry.id, entry.name, size, folders, page and str(page))


def _has_database(sweep: Sweep) -> bool:
    try:
        return bool(sweep.database)
    except NothingCreated:
        return False


def _checkpoints(sweep: Sweep) -> Path:
    """The folder of its trials' checkpoints below ``FERSWEEP_CHECKPOINTS``; its own without that."""
    return checkpoint_folder(sweep.id, "0").parent if os.environ.get("FERSWEEP_CHECKPOINTS") else sweep.folder


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _remove(folder: Path) -> None:
    try:
        for path in folder.iterdir():  # sweep.json last: with it, a deletion that failed can be repeated
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "sweep.json":
                path.unlink()
        shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(
            f"cannot delete {error.filename or folder}: {error.strerror or error}",
            hint="make it writable, then run the same command again",
        ) from error
