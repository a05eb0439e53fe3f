"""The sweeps known here: made, found again by id, and opened with the search that belongs to each.

``sweeps/<id>/sweep.json`` says which search a sweep has and where its state lies; the state itself is the search's.
"""

import contextlib
import functools
import os
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fer_sweep.account import has_login, tracking_mode
from fer_sweep.config.binding import bind
from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile, load_with_lines, parse_sweep, with_constants, with_run_cap
from fer_sweep.errors import InputError, NothingToDo, SweepFileError
from fer_sweep.files import can_be_resumed, home, sweep_folder
from fer_sweep.search import Search
from fer_sweep.search.database import Database, check_storage, default_storage, recorded
from fer_sweep.search.entries import SweepEntry, known, remember
from fer_sweep.search.leases import lease_seconds
from fer_sweep.search.ledger import Ledger, SweepState
from fer_sweep.search.storage import create_sweep, load_sweep, record_sweep, set_sweep_state, sweep_state
from fer_sweep.search.sweep_data import pin_data

if TYPE_CHECKING:
    from fer_sweep.search.wandb_messages import SweepPath
    from fer_sweep.search.wandb_protocol import WandbServer
    from fer_sweep.search.wandb_sweeps import Made

SEARCHES = ("wandb", "optuna")
"""The searches there are."""


class OpenSearch(Search, Protocol):
    """A search, to be closed when done."""

    def close(self) -> None:
        """Give up what is held."""
        ...


def create(
    file: Path,
    *,
    constants: Mapping[str, Any] | None = None,
    count: int | None = None,
    search: str | None = None,
    storage: str | None = None,
    max_gap: float | None = None,
    seed: int | None = None,
    entity: str | None = None,
    project: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> SweepEntry:
    """Make a sweep from a file, after everything in it has been checked.

    Args:
        file: A sweep file in W&B's format.
        constants: Parameters to fix, by dotted name, whatever the file says of them.
        count: Replaces the file's run_cap.
        search: One of SEARCHES; None takes the W&B server if runs are tracked online and it can do what is asked.
        storage: Database URL; None for that of ``FERSWEEP_STORAGE``, or ``sweeps.db`` in fersweep's home.
        max_gap: Only trials with at most this train_val_gap count as solutions.
        seed: Seeds the embedded search.
        entity: W&B user or team, before what environment and file say.
        project: W&B project, likewise.
        note: Gets what runs but is probably not meant.

    Raises:
        SweepFileError: The file cannot be used; nothing has been made.
        LoginError: The W&B server does not know the key, or the key has no right to that entity.
        InputError: An option does not fit the file, or the server refuses it, or a database cannot be there.
    """
    if search not in (None, *SEARCHES):
        raise InputError(f"--search {search}: not here", hint=f"one of {', '.join(SEARCHES)}")
    sweep = checked(file, constants=constants, count=count, note=note)
    given = {"--storage": storage, "--max-gap": max_gap, "--seed": seed}
    embedded = next((option for option, value in given.items() if value is not None), None)
    if search is None:
        search = "wandb" if tracking_mode() == "online" and not embedded and sweep.method != "custom" else "optuna"
    if search == "wandb":
        if embedded:
            raise InputError(f"{embedded} is for search optuna; a W&B server has none", hint="add --search optuna")
        return _create_on_server(sweep, entity, project, note)
    storage = _new_storage(storage, note)
    place = {name: value for name, value in (("entity", entity), ("project", project)) if value}
    if place:
        sweep = parse_sweep({**sweep.to_plain(), **place})
    entry = SweepEntry(_new_id(), search, storage, sweep.name, time.time(), max_gap)
    create_sweep(sweep, sweep_id=entry.id, storage=entry.database, max_gap=max_gap, seed=seed or 0)
    remember(entry, sweep)
    pin_data(entry, sweep, note)
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


def find(sweep_id: str | None, *, note: Callable[[str], None] = lambda text: None) -> SweepEntry:
    """The sweep of this id, or the one created last; one of a W&B server is taken up if it is not known here yet.

    Args:
        sweep_id: An id, ENTITY/PROJECT/ID, or the address of a sweep's page; None for the last one.
        note: Gets what runs but is probably not meant, about a sweep that is taken up.

    Raises:
        NothingToDo: No sweep has been created here yet.
        InputError: No sweep has this id.
        LoginError: It is on a server that this key has no access to.
    """
    entries = known()
    if sweep_id is None:
        if not entries:
            raise NothingToDo(f"no sweep in {home()} yet", hint="make one: fersweep create sweeps/simple_cnn.yaml")
        return entries[-1]
    for entry in entries:
        if sweep_id in (entry.id, entry.path, entry.url):
            return entry
    if "/" in sweep_id or (has_login() and tracking_mode() == "online"):
        try:
            return _take_up(sweep_id, note)
        except InputError as error:
            if "/" in sweep_id or isinstance(error, SweepFileError):
                raise
            elsewhere = f"; on W&B: {error}"
    else:
        elsewhere = ""
    if not entries:
        raise InputError(f"no sweep {sweep_id!r} in {home()}{elsewhere}", hint="one on W&B is ENTITY/PROJECT/ID")
    near = get_close_matches(sweep_id, [entry.id for entry in entries], n=1)
    known_ids = ", ".join(entry.id for entry in entries[-5:])
    raise InputError(
        f"no sweep {sweep_id!r} in {home()}{elsewhere}",
        hint=f"did you mean {near[0]}?" if near else f"the latest here: {known_ids}; on W&B: ENTITY/PROJECT/ID",
    )


def open_search(entry: SweepEntry, *, end_waiting: Callable[[], bool] = lambda: False) -> OpenSearch:
    """The search of a sweep; close it when done.

    Args:
        entry: The sweep.
        end_waiting: Asked while a database server is waited for; where it is true, ``Interrupted`` is raised.
    """
    resumable = functools.partial(can_be_resumed, entry.id)
    if entry.search == "wandb":
        from fer_sweep.search.wandb_server import WandbSearch

        return WandbSearch(
            path_of(entry),
            connect=connect,
            storage=entry.database,
            lease_s=lease_seconds(),
            end_waiting=end_waiting,
            can_be_resumed=resumable,
        )
    from fer_sweep.search.optuna_embedded import OptunaSearch

    return OptunaSearch(
        entry.id,
        storage=entry.database,
        lease_s=lease_seconds(),
        end_waiting=end_waiting,
        can_be_resumed=resumable,
    )


def load(entry: SweepEntry) -> SweepFile:
    """The sweep file of a sweep, as it was created: constants and cap of the command line included."""
    return load_sweep(entry.database, entry.id)


def state_of(entry: SweepEntry) -> str:
    """Where a sweep stands: running, paused, stopped, cancelled or finished; a server says finished for stopped.

    Raises:
        ServerError: Its server does not answer.
    """
    if entry.search == "wandb":
        with contextlib.closing(connect()) as server:
            return str(server.sweep(path_of(entry)).state)
    return str(sweep_state(entry.database, entry.id))


def set_state(entry: SweepEntry, state: str) -> None:
    """Pause (``paused``), resume (``running``), stop (``stopped``) or cancel (``cancelled``) a sweep.

    Raises:
        InputError: A sweep in its present state cannot go there.
        ServerError: Its server does not answer.
    """
    if entry.search != "wandb":
        set_sweep_state(entry.database, entry.id, state)
        return
    with contextlib.closing(connect()) as server:
        current, wanted = server.sweep(path_of(entry)).state, SweepState(state)
        # A server has one word for a sweep that is stopped and one at its end.
        if current is SweepState.FINISHED and wanted is SweepState.STOPPED:
            return
        over = current in (SweepState.FINISHED, SweepState.CANCELLED)
        if over and wanted is not SweepState.RUNNING and current != wanted:
            raise InputError(f"sweep {entry.id} is {current} and cannot become {wanted}", hint="it is over")
        if current != wanted:
            server.set_state(path_of(entry), wanted)


def reports_of(entry: SweepEntry, trial_id: str) -> Sequence[Mapping[str, float]]:
    """A trial's metrics by epoch, as its agent reported them.

    Raises:
        StorageError: The database cannot be read.
    """
    with contextlib.closing(Database(entry.database)) as database, database.transaction(write=False) as connection:
        ledger = Ledger(connection, entry.id)
        if entry.search != "wandb":
            return ledger.reports_of(int(trial_id))
        row = ledger.find(trial_id)
        return ledger.reports_of(row["number"]) if row else []


def _create_on_server(
    sweep: SweepFile, entity: str | None, project: str | None, note: Callable[[str], None]
) -> SweepEntry:
    from fer_sweep.search import wandb_sweeps  # only here: the embedded search needs no HTTP

    wandb_sweeps.check_searchable(sweep)
    storage = _new_storage(None, note)
    with contextlib.closing(connect()) as server:
        made = wandb_sweeps.make(server, sweep, entity=entity, project=project)
    for warning in made.warnings:
        note(f"W&B: {warning}")
    return _record(made, sweep, storage, note)


def _take_up(text: str, note: Callable[[str], None]) -> SweepEntry:
    from fer_sweep.search import wandb_sweeps

    with contextlib.closing(connect()) as server:
        made, sweep = wandb_sweeps.take_up(server, text)
    wandb_sweeps.check_searchable(sweep)
    source = f"sweep {made.path}"
    for problem in bind(sweep, Space.from_sweep(sweep, source=source), source=source, lines={}):
        note(f"{source}, {problem}")
    for entry in known():
        if entry.path == str(made.path):
            return entry
        if entry.id == made.path.id:
            raise InputError(
                f"{home()} holds another sweep called {entry.id}: {entry.path or 'an embedded one'}",
                hint="set FERSWEEP_HOME to another folder for this one",
            )
    return _record(made, sweep, _new_storage(None, note), note)


def _record(made: "Made", sweep: SweepFile, storage: str | None, note: Callable[[str], None]) -> SweepEntry:
    path = made.path
    sweep_folder(path.id)  # an id of a server's that cannot name a folder is refused before anything is recorded
    entry = SweepEntry(path.id, "wandb", storage, sweep.name, time.time(), url=made.url, path=str(path))
    record_sweep(sweep, entry.id, entry.database)
    remember(entry, sweep)
    pin_data(entry, sweep, note)
    return entry


def connect() -> "WandbServer":
    """The W&B server in use.

    Raises:
        LoginError: There is no API key.
    """
    from fer_sweep.search import wandb_sweeps  # only here: httpx and wandb take half a second to import

    return wandb_sweeps.connect()


def path_of(entry: SweepEntry) -> "SweepPath":
    """Where a sweep is that a server searches."""
    from fer_sweep.search.wandb_messages import SweepPath

    return SweepPath.read(entry.path or "")


def _new_storage(storage: str | None, note: Callable[[str], None]) -> str | None:
    """The database of a sweep to be made, as its entry holds it: good in every folder, and without a password."""
    storage = storage or os.environ.get("FERSWEEP_STORAGE") or None
    check_storage(storage or default_storage())
    if storage is None:
        return None
    kept = recorded(storage)
    if kept != storage and not kept.startswith("sqlite:"):
        note("the password in the storage's URL is written down nowhere: later commands want PGPASSWORD or ~/.pgpass")
    return kept


def _new_id() -> str:
    # Eight letters and digits, as W&B's are.
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
