"""What stands on the W&B server in use for the sweeps known here: pages, and the runs on them.

A sweep that the server searches is there anyway; an embedded one gets a sweep there that its runs belong to.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from fer_sweep.errors import FersweepError
from fer_sweep.files import sweep_folder
from fer_sweep.records import TrialState
from fer_sweep.search import owners, wandb_sweeps
from fer_sweep.search.database import Database, Row, default_storage
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.ledger import Ledger, SweepState
from fer_sweep.search.registry import connect, load, path_of, state_of
from fer_sweep.search.wandb_messages import ENDED_AS, IN_HAND, ServerRun, SweepPath
from fer_sweep.search.wandb_sweeps import Made

log = logging.getLogger(__name__)

_SETTLED_S = 30.0
"""After a trial's end; its own agent has brought its run's end up by then, or has given up for now."""


def page_of(entry: SweepEntry) -> Made:
    """The sweep on the W&B server in use that this sweep's runs belong to; made there if the search is embedded.

    Raises:
        LoginError: There is no key, or a wrong one.
        ServerError: The server does not answer.
    """
    if entry.search == "wandb":
        return wandb_sweeps.Made(path_of(entry), entry.url or "", ())
    with contextlib.closing(connect()) as server:
        return wandb_sweeps.stand_in_for(server, entry.id, load(entry))


def runs_on_server(path: SweepPath) -> Sequence[ServerRun]:
    """Every run that the server in use has of a sweep.

    Raises:
        ServerError: The server does not answer.
    """
    with contextlib.closing(connect()) as server:
        return list(server.runs(path))


def has_its_end(state: TrialState, run: ServerRun) -> bool:
    """Whether the server says of a run what became of its trial; of one that runs, it may say anything."""
    if state in ENDED_AS:
        return run.state in ENDED_AS[state] and run.summary.get("state") == state
    return state is TrialState.RUNNING or run.state not in ("running", "pending")


def has_ended_on_page(entry: SweepEntry, trial_id: str) -> bool | None:
    """Whether the server has what became of a trial in its run, or shows no runs of this sweep; None if not known."""
    try:
        with _trials(entry) as (ledger, _):
            rows = [ledger.find(trial_id)] if entry.search == "wandb" else ledger.since(int(trial_id), ())
        state = TrialState(rows[0]["state"]) if rows and rows[0] else TrialState.RUNNING
        with contextlib.closing(connect()) as server:
            path = _path(entry, server.account.server)
            run = server.run(path, entry.run_id(trial_id), tries=1) if path is not None else None
    except FersweepError as error:
        log.debug("%s", error)
        return None
    return path is None or (run is not None and has_its_end(state, run))


def left_behind(entry: SweepEntry, whole: set[str]) -> Sequence[str]:
    """Trials that have ended here, but not on the server, and whose agents do not see to it; none if it cannot tell.

    An agent that was killed had no time to. And a run that had ended may live again: what the wandb of a killed agent
    still had to say may reach the server after the end that the trial's next agent brought up. Nobody would end it a
    second time, and a sweep with a run alive is not over.

    Args:
        entry: The sweep.
        whole: Trials of killed agents whose runs had their end, which are asked for no more; what is found so is added.
    """
    try:
        with _trials(entry) as (ledger, clock):
            rows = {_name(entry, row): row for row in ledger.all() if row["state"] in ENDED_AS}
            now = clock()
        unseen = {trial for trial, row in rows.items() if trial not in whole and owners.is_dead(row["owner"])}
        settled = {trial for trial, row in rows.items() if now - row["ended"] >= _SETTLED_S}
        if not unseen | settled:
            return ()
        with contextlib.closing(connect()) as server:
            path = _path(entry, server.account.server)
            if path is None:
                return ()
            runs = {run.id: run for run in server.runs(path, states=() if unseen else IN_HAND, tries=1)}
    except FersweepError as error:
        log.debug("%s", error)
        return ()

    def is_left(trial: str, row: Row) -> bool:
        run = runs.get(entry.run_id(trial))
        if trial in unseen and (run is None or not has_its_end(TrialState(row["state"]), run)):
            return True
        return trial in settled and run is not None and run.state in IN_HAND

    left = [trial for trial, row in rows.items() if is_left(trial, row)]
    whole |= unseen - set(left)
    return left


def _name(entry: SweepEntry, row: Row) -> str:
    return str(row["identity" if entry.search == "wandb" else "number"])


def _path(entry: SweepEntry, server: str) -> SweepPath | None:
    return path_of(entry) if entry.search == "wandb" else wandb_sweeps.known_page(entry.id, server)


@contextlib.contextmanager
def _trials(entry: SweepEntry) -> Iterator[tuple[Ledger, Callable[[], float]]]:
    """The sweep's trials, and the clock they go by."""
    storage = entry.storage or default_storage()
    with contextlib.closing(Database(storage)) as database, database.transaction(write=False) as connection:
        yield Ledger(connection, entry.id), database.clock


def close_page(entry: SweepEntry) -> None:
    """Show an embedded sweep as finished on its page, if it has one and is over; done later if it cannot be now."""
    if entry.search == "wandb" or not (sweep_folder(entry.id) / "wandb.json").exists():
        return
    try:
        if state_of(entry) in ("running", "paused"):
            return
        with contextlib.closing(connect()) as server:
            path = wandb_sweeps.known_page(entry.id, server.account.server)
            if path is not None and server.sweep(path).state is SweepState.RUNNING:
                server.set_state(path, SweepState.FINISHED)
    except FersweepError as error:
        log.warning("the sweep's page still says running: %s", error)
