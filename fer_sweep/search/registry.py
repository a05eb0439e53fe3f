"""The sweeps known here: made, found again by id, and opened with the search that belongs to each.

``sweeps/<id>/sweep.json`` says which search a sweep has and where its state lies; the state itself is the search's.
"""

import json
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile, load_with_lines, with_constants, with_run_cap
from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.files import home, sweep_folder, write_atomically
from fer_sweep.search.database import database_path, default_storage
from fer_sweep.search.storage import create_sweep, load_sweep, set_sweep_state, sweep_state

if TYPE_CHECKING:
    from fer_sweep.search.optuna_embedded import OptunaSearch

SEARCHES = ("optuna",)
"""The searches there are."""


@dataclass(frozen=True)
class SweepEntry:
    """What is known here of one sweep."""

    id: str
    search: str
    """What proposes its trials."""
    storage: str | None
    """Where the search keeps its state: a database URL; None for ``sweeps.db`` in fersweep's home, wherever that
    is moved."""
    name: str | None
    """The name in its file."""
    created: float
    """Unix time, seconds."""
    max_gap: float | None = None
    """The constraint on the winner's train-val gap, as a fraction."""
    url: str | None = None
    """Its page, for a search on a server."""


def create(
    file: Path,
    *,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    search: str = "optuna",
    storage: str | None = None,
    max_gap: float | None = None,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> SweepEntry:
    """Make a sweep from a file, after everything in it has been checked.

    Args:
        file: A sweep file in W&B's format.
        constants: Parameters to fix, by dotted name, whatever the file says of them.
        count: Replaces the file's run_cap.
        search: One of SEARCHES.
        storage: Database URL; None for ``sweeps.db`` in fersweep's home.
        max_gap: Only trials with at most this train_val_gap count as solutions.
        seed: Seeds the search.
        note: Gets what runs but is probably not meant.

    Raises:
        SweepFileError: The file cannot be used; nothing has been made.
        InputError: An option does not fit the file.
    """
    if search not in SEARCHES:
        raise InputError(f"--search {search}: not here", hint=f"one of {', '.join(SEARCHES)}")
    sweep = checked(file, constants=constants, count=count, note=note)
    if storage is not None:
        storage = f"sqlite:///{database_path(storage).absolute()}"  # agents may start in other folders
    entry = SweepEntry(_new_id(), search, storage, sweep.name, time.time(), max_gap)
    create_sweep(sweep, sweep_id=entry.id, storage=_storage(entry), max_gap=max_gap, seed=seed)
    folder = sweep_folder(entry.id)
    write_atomically(folder / "sweep.yaml", yaml.safe_dump(sweep.to_plain(), sort_keys=False))
    write_atomically(folder / "sweep.json", json.dumps(asdict(entry), indent=2) + "\n")
    return entry


def checked(
    file: Path,
    *,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> SweepFile:
    """Load a sweep file, fix constants and cap, and check every parameter against the training function.

    Raises:
        SweepFileError: With every problem found.
    """
    sweep, lines = load_with_lines(file)
    if constants:
        sweep = with_constants(sweep, constants)
        # A value of the command line stands in no line of the file.
        given = tuple(f"parameters.{name}" for name in constants)
        lines = {key: line for key, line in lines.items() if not key.startswith(given)}
    if count is not None:
        sweep = with_run_cap(sweep, count)
    space = Space.from_sweep(sweep, source=str(file), lines=lines)
    for problem in bind(sweep, space, source=str(file), lines=lines):
        note(f"{file}, {problem}")
    return sweep


def find(sweep_id: str | None) -> SweepEntry:
    """The sweep of this id, or the one created last.

    Raises:
        NothingToDo: No sweep has been created here yet.
        InputError: No sweep has this id.
    """
    entries = known()
    if not entries:
        raise NothingToDo(f"no sweep in {home()} yet", hint="make one: fersweep create sweeps/simple_cnn.yaml")
    if sweep_id is None:
        return entries[-1]
    for entry in entries:
        if entry.id == sweep_id:
            return entry
    near = get_close_matches(sweep_id, [entry.id for entry in entries], n=1)
    known_ids = ", ".join(entry.id for entry in entries[-5:])
    raise InputError(
        f"no sweep {sweep_id!r} in {home()}",
        hint=f"did you mean {near[0]}?" if near else f"the latest here: {known_ids}",
    )


def known() -> Sequence[SweepEntry]:
    """Every sweep created here, oldest first.

    Raises:
        StorageError: A sweep.json cannot be read.
    """
    entries = []
    for path in (home() / "sweeps").glob("*/sweep.json"):
        try:
            entries.append(SweepEntry(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise StorageError(
                f"{path} cannot be read: {error}",
                hint="restore it, or move the sweep's folder away to go on without it",
            ) from error
    return sorted(entries, key=lambda entry: entry.created)


def open_search(entry: SweepEntry) -> "OptunaSearch":
    """The search of a sweep; close it when done."""
    from fer_sweep.search.optuna_embedded import OptunaSearch

    return OptunaSearch(entry.id, storage=_storage(entry))


def load(entry: SweepEntry) -> SweepFile:
    """The sweep file of a sweep, as it was created: constants and cap of the command line included."""
    return load_sweep(_storage(entry), entry.id)


def state_of(entry: SweepEntry) -> str:
    """Where a sweep stands: running, paused, stopped, cancelled or finished."""
    return str(sweep_state(_storage(entry), entry.id))


def set_state(entry: SweepEntry, state: str) -> None:
    """Pause (``paused``), resume (``running``), stop (``stopped``) or cancel (``cancelled``) a sweep.

    Raises:
        InputError: A sweep in its present state cannot go there.
    """
    set_sweep_state(_storage(entry), entry.id, state)


def _storage(entry: SweepEntry) -> str:
    return entry.storage or default_storage()


def _new_id() -> str:
    # Eight letters and digits, as W&B's are.
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
