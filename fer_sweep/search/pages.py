"""What stands on the W&B server in use for the sweeps known here: pages, and the runs on them.

A sweep that the server searches is there anyway; an embedded one gets a sweep there that its runs belong to.
"""

import contextlib
import logging
from collections.abc import Sequence

from fer_sweep.errors import FersweepError
from fer_sweep.files import sweep_folder
from fer_sweep.search import wandb_sweeps
from fer_sweep.search.ledger import SweepState
from fer_sweep.search.registry import SweepEntry, connect, load, path_of, state_of
from fer_sweep.search.wandb_messages import ServerRun, SweepPath
from fer_sweep.search.wandb_sweeps import Made

log = logging.getLogger(__name__)


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


def has_ended_on_page(entry: SweepEntry, trial_id: str) -> bool:
    """Whether the server has the end of a trial's run; also true where it cannot be asked."""
    try:
        with contextlib.closing(connect()) as server:
            path = (
                path_of(entry) if entry.search == "wandb" else wandb_sweeps.known_page(entry.id, server.account.server)
            )
            run = server.run(path, entry.run_id(trial_id), tries=1) if path is not None else None
    except FersweepError as error:
        log.debug("%s", error)
        return True
    return path is None or (run is not None and run.state not in ("running", "pending"))


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
