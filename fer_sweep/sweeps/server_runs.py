"""What the W&B server in use has of the runs of a sweep that was trained here."""

import contextlib
import logging
from collections.abc import Sequence

from fer_sweep import owners
from fer_sweep.errors import FersweepError
from fer_sweep.records import TrialState
from fer_sweep.store.database import Row
from fer_sweep.store.trials import Ledger
from fer_sweep.sweeps.opened import Sweep
from fer_sweep.wandb_client import sweeps as wandb_sweeps
from fer_sweep.wandb_client.messages import ENDED_AS, IN_HAND, ServerRun, SweepPath

log = logging.getLogger(__name__)

_SETTLED_S = 30.0
"""After a trial's end; its own agent has uploaded its run's end by then, or has given up for now."""


def runs_on_server(path: SweepPath) -> Sequence[ServerRun]:
    """Every run that the server in use has of a sweep.

    Raises:
        ServerError: The server does not answer.
    """
    with contextlib.closing(wandb_sweeps.connect()) as server:
        return list(server.runs(path))


def has_its_end(state: TrialState, run: ServerRun) -> bool:
    """Whether the server says of a run what became of its trial; of one that runs, it may say anything."""
    if state in ENDED_AS:
        return run.state in ENDED_AS[state] and run.summary.get("state") == state
    return state is TrialState.RUNNING or run.state not in ("running", "pending")


def has_ended_on_server(sweep: Sweep, trial_id: str) -> bool | None:
    """Whether the server has what became of a trial in its run, or shows no runs of this sweep; None if not known."""
    try:
        with sweep.database.transaction(write=False) as connection:
            row = sweep.row_of(Ledger(connection, sweep.id), trial_id)
        state = TrialState(row["state"]) if row else TrialState.RUNNING
        with contextlib.closing(wandb_sweeps.connect()) as server:
            path = sweep.known_page(server.account.server)
            run = server.run(path, sweep.run_id(trial_id), tries=1) if path is not None else None
    except FersweepError as error:
        log.debug("%s", error)
        return None
    return path is None or (run is not None and has_its_end(state, run))


def left_behind(sweep: Sweep, whole: set[str]) -> Sequence[str]:
    """Trials that have ended here but not on the server, and that no agent uploads; none if that cannot be told.

    An agent that was killed had no time to. And late writes can reopen a finished run: what the wandb of a killed agent
    still had to send may reach the server after the end that the trial's next agent uploaded. No agent would end it a
    second time, and a sweep with a running run is not over.

    Args:
        sweep: The sweep.
        whole: Trials of killed agents whose runs had their end, which are asked for no more; what is found so is added.
    """
    try:
        with sweep.database.transaction(write=False) as connection:
            rows = {sweep.trial_of(row): row for row in Ledger(connection, sweep.id).all() if row["state"] in ENDED_AS}
        now = sweep.database.clock()
        unseen = {trial for trial, row in rows.items() if trial not in whole and owners.is_dead(row["owner"])}
        settled = {trial for trial, row in rows.items() if now - row["ended"] >= _SETTLED_S}
        if not unseen | settled:
            return ()
        with contextlib.closing(wandb_sweeps.connect()) as server:
            path = sweep.known_page(server.account.server)
            if path is None:
                return ()
            runs = {run.id: run for run in server.runs(path, states=() if unseen else IN_HAND, tries=1)}
    except FersweepError as error:
        log.debug("%s", error)
        return ()

    def is_left(trial: str, row: Row) -> bool:
        run = runs.get(sweep.run_id(trial))
        if trial in unseen and (run is None or not has_its_end(TrialState(row["state"]), run)):
            return True
        return trial in settled and run is not None and run.state in IN_HAND

    left = [trial for trial, row in rows.items() if is_left(trial, row)]
    whole |= unseen - set(left)
    return left
