"""``fersweep sync``: upload what was trained here to a W&B server, from fersweep's own records.

Every run is rebuilt from ``history.jsonl`` and ``sweeps.db``, whether it was tracked offline, its upload failed, or its
agent was killed: the run on the server is complete, has the id it would have had, and belongs to one sweep. Runs that
are complete already are left alone, so an interrupted sync can be repeated, and a second one does nothing.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import filelock

from fer_sweep import owners
from fer_sweep.errors import FersweepError, ServerError, StorageError, cannot_write
from fer_sweep.files import is_locked
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.store.trials import Ledger
from fer_sweep.sweeps import Sweep
from fer_sweep.training.history import read_history
from fer_sweep.wandb_client.messages import ServerRun
from fer_sweep.wandb_client.reconcile import OPEN, UPLOADS, Action, LocalTrial, reconcile
from fer_sweep.wandb_client.tracking import RunLabels, Tracker

log = logging.getLogger(__name__)

_SETTLED_S = 30.0
"""After a trial's end: its agent has uploaded the end by then, or has failed to for now."""


@dataclass(frozen=True)
class Synced:
    """What a sync did."""

    url: str
    """The sweep's page."""
    actions: Mapping[str, Action]
    """By trial."""


def upload(
    sweep: Sweep, *, trials: Collection[str] = (), keep_models: bool = False, say: Callable[[str], None]
) -> Synced:
    """Upload what the W&B server in use does not have of a sweep's runs.

    Args:
        sweep: The sweep.
        trials: Only these; all if empty.
        keep_models: Upload the best weights of complete trials too.
        say: Gets a line for every run.

    Raises:
        LoginError: There is no key, or a wrong one.
        ServerError: The server does not answer, or stopped to.
        StorageError: Another sync of this sweep is running.
    """
    with _alone(sweep):
        page = sweep.page()
        labels = RunLabels(sweep.id, page.path.entity, page.path.project, page.path.id)
        chosen = [record for record in sweep.trials() if not trials or record.trial_id in trials]
        records = [record for record in chosen if sweep.uploads(record)]
        runs = sweep.server.runs(page.path)
        tracker = Tracker(mode="online", keep_models=keep_models, obey_pages=False)
        actions = {}
        for number, record in enumerate(records, start=1):
            trial, folder = record.trial_id, sweep.trial_folder(record.trial_id)
            rows = _history(sweep, trial, say)
            in_use = record.state is TrialState.RUNNING and is_locked(folder / ".lock")
            has_matrix = record.result is not None and record.state.has_ended
            lines = len(rows) + has_matrix  # the confusion matrix has a line of its own
            local = LocalTrial(trial, sweep.run_id(trial), record.state, lines, in_use)
            action = actions[trial] = reconcile([local], runs)[trial]
            if action in UPLOADS and not _upload(tracker, labels, sweep, record, rows):
                failed = f"the run of trial {trial} could not be uploaded ({number} of {len(records)})"
                raise ServerError(failed, hint="repeat the command: it continues with this run")
            say(f"{number}/{len(records)} trial {trial} ({record.state}, {len(rows)} epochs): {action}")
    sweep.close_page()
    return Synced(page.url, actions)


def check(sweep: Sweep, own: Collection[str], complete: set[tuple[str, float]]) -> Mapping[str, Action] | None:
    """Compare trials with their runs on the server, for an agent; asks for few runs.

    Compared are the agent's own trials and those that killed agents have ended, and of the other ended trials those
    whose runs are open: late writes of wandb, also from a killed agent, can reopen a finished run.

    Args:
        sweep: The sweep.
        own: Trials whose runs this process has ended.
        complete: Trials of killed agents, with the time of their end, that are not asked for again as their runs are
            complete; those found so are added.

    Returns:
        By trial; None if the server or the database does not answer.
    """
    try:
        with sweep.database.transaction(write=False) as connection:
            rows = {sweep.trial_of(row): row for row in Ledger(connection, sweep.id).all()}
        now = sweep.database.clock()
        ended = {trial: row["ended"] for trial, row in rows.items() if TrialState(row["state"]).has_ended}
        orphans = {end for end in ended.items() if end not in complete and owners.is_dead(rows[end[0]]["owner"])}
        settled = {trial for trial, when in ended.items() if now - when >= _SETTLED_S}
        asked = {*own, *dict(orphans)} & rows.keys()
        local = [
            LocalTrial(
                trial,
                sweep.run_id(trial),
                state := TrialState(rows[trial]["state"]),
                in_use=trial not in asked or state is TrialState.RUNNING,
                is_settled=trial in settled,
                server_resumes=sweep.searched_by_server,
            )
            for trial in ended.keys() | asked
        ]
        runs = _runs(sweep, [sweep.run_id(trial) for trial in asked]) if asked or settled else ()
    except FersweepError as error:
        log.debug("%s", error)
        return None
    actions = reconcile(local, runs)
    complete |= {end for end in orphans if actions[end[0]] is Action.NONE}
    return actions


def _runs(sweep: Sweep, run_ids: Sequence[str]) -> Sequence[ServerRun]:
    """These runs and the open ones of a sweep."""
    server = sweep.server
    path = sweep.known_page(server.account.server)
    if path is None:
        return ()
    still_open = server.runs(path, states=OPEN, tries=1)
    return [*still_open, *(server.runs(path, ids=run_ids, tries=1) if run_ids else ())]


def _history(sweep: Sweep, trial_id: str, say: Callable[[str], None]) -> Sequence[Mapping[str, float]]:
    # The database has the same rows, should the trial's folder be deleted or its history be damaged.
    try:
        return read_history(sweep.trial_folder(trial_id) / "history.jsonl") or sweep.reports(trial_id)
    except StorageError as error:
        if not (rows := sweep.reports(trial_id)):
            raise
        say(f"note: {error}; read from the database instead")
        return rows


def _upload(
    tracker: Tracker, labels: RunLabels, sweep: Sweep, record: TrialRecord, rows: Sequence[Mapping[str, float]]
) -> bool:
    run = tracker.start(
        labels.of_trial(record.trial_id, record.config),
        record.config,
        run_id=sweep.run_id(record.trial_id),
        folder=sweep.trial_folder(record.trial_id),
        started_at=record.started_at,
    )
    for row in rows:
        run.log({**row, **_when(record, row)})
    outcome = TrialOutcome(record.state, record.result, record.reason)
    if record.state is TrialState.RUNNING:
        outcome = replace(outcome, state=TrialState.PREEMPTED, reason=record.reason or "its agent was killed")
    run.finish(outcome)
    return not run.had_trouble


def _when(record: TrialRecord, row: Mapping[str, float]) -> dict[str, float]:
    # The history does not say when an epoch ended, so spread the epochs evenly over the trial's time.
    result = record.result
    if record.started_at is None or record.ended_at is None or result is None or not result.epochs:
        return {}
    return {"_timestamp": record.started_at + (record.ended_at - record.started_at) * row["epoch"] / result.epochs}


@contextlib.contextmanager
def _alone(sweep: Sweep) -> Iterator[None]:
    try:
        lock = filelock.FileLock(sweep.folder / ".sync.lock", timeout=0).acquire()
    except filelock.Timeout:
        hint = "wait for it, or terminate it"
        raise StorageError(f"another sync of sweep {sweep.id} is running", hint=hint) from None
    except OSError as error:
        raise cannot_write(sweep.folder, error) from error
    with lock:
        yield
