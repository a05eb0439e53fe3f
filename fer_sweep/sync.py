"""``fersweep sync``: what was trained here, brought up to a W&B server from our own records.

Every run is rebuilt from ``history.jsonl`` and ``sweeps.db``, whether it was tracked offline, lost its network, or its
agent was killed in the middle: the run on the server is whole, has the id it would have had, and belongs to one sweep.
What is there already is left alone, so a sync that was interrupted goes on, and a second one does nothing.
"""

import contextlib
import fcntl
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fer_sweep.errors import ServerError, StorageError
from fer_sweep.files import is_locked
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.sweeps import Sweep
from fer_sweep.sweeps.server_runs import runs_on_server
from fer_sweep.training.history import read_history
from fer_sweep.wandb_client.messages import ENDED_AS, ServerRun
from fer_sweep.wandb_client.run_labels import Place, trial_labels
from fer_sweep.wandb_client.tracking import Tracker

_UP_TO_DATE = {**ENDED_AS, TrialState.PREEMPTED: ("preempted", "preempting", *ENDED_AS[TrialState.FAILED])}
"""How the server may call the run of a trial in a state that is up to date there."""


class Fate(StrEnum):
    """What became of one run."""

    UPLOADED = "uploaded"
    COMPLETED = "completed"
    """It was there in part."""
    THERE = "already there"
    RUNNING = "still running"


@dataclass(frozen=True)
class Synced:
    """What a sync did."""

    url: str
    """The sweep's page."""
    fates: Mapping[str, Fate]
    """By trial."""

    def count(self, fate: Fate) -> int:
        """Trials with this fate."""
        return sum(found is fate for found in self.fates.values())


def upload(
    sweep: Sweep,
    *,
    trials: Collection[str] = (),
    keep_models: bool = False,
    say: Callable[[str], None],
) -> Synced:
    """Bring every run of a sweep up to date on the W&B server in use.

    Args:
        sweep: The sweep.
        trials: Only these; all if empty.
        keep_models: Upload the best weights of complete trials too.
        say: Gets a line for every run.

    Raises:
        LoginError: There is no key, or a wrong one.
        ServerError: The server does not answer, or stopped to.
        StorageError: Another sync of this sweep is under way.
    """
    with _alone(sweep):
        page = sweep.page()
        place = Place(page.path.entity, page.path.project, page.path.id)
        chosen = [record for record in sweep.trials() if not trials or record.trial_id in trials]
        records = [record for record in chosen if sweep.uploads(record)]
        there = {run.id: run for run in runs_on_server(page.path)}
        tracker = Tracker(mode="online", keep_models=keep_models, obey_pages=False)
        fates = {}
        for number, record in enumerate(records, start=1):
            rows = _history(sweep, record.trial_id, say)
            known = there.get(sweep.run_id(record.trial_id))
            fate = _fate(sweep, record, rows, known)
            if fate in (Fate.UPLOADED, Fate.COMPLETED) and not _upload(tracker, place, sweep, record, rows):
                raise ServerError(
                    f"the run of trial {record.trial_id} did not get through, the {number}th of {len(records)}",
                    hint="the same command goes on where this one stopped",
                )
            fates[record.trial_id] = fate
            say(f"{number}/{len(records)} trial {record.trial_id} ({record.state}, {len(rows)} epochs): {fate}")
    sweep.close_page()
    return Synced(page.url, fates)


def _history(sweep: Sweep, trial_id: str, say: Callable[[str], None]) -> Sequence[Mapping[str, float]]:
    # What the database has is as good, should the trial's folder be gone or its history be damaged.
    try:
        return read_history(sweep.trial_folder(trial_id) / "history.jsonl") or sweep.reports(trial_id)
    except StorageError as error:
        if not (rows := sweep.reports(trial_id)):
            raise
        say(f"note: {error}; taken from the database instead")
        return rows


def _fate(sweep: Sweep, record: TrialRecord, rows: Sequence[Mapping[str, float]], known: ServerRun | None) -> Fate:
    if record.state is TrialState.RUNNING and is_locked(sweep.trial_folder(record.trial_id) / ".lock"):
        return Fate.RUNNING
    if known is None:
        return Fate.UPLOADED
    state = TrialState.PREEMPTED if record.state is TrialState.RUNNING else record.state
    same_end = known.state in _UP_TO_DATE[state] and known.summary.get("state") == state
    lines = len(rows) + (record.result is not None)  # the confusion matrix has a line of its own
    return Fate.THERE if same_end and known.steps >= lines else Fate.COMPLETED


def _upload(
    tracker: Tracker, place: Place, sweep: Sweep, record: TrialRecord, rows: Sequence[Mapping[str, float]]
) -> bool:
    run = tracker.start(
        trial_labels(sweep.id, record.trial_id, record.config, place),
        record.config,
        run_id=sweep.run_id(record.trial_id),
        folder=sweep.trial_folder(record.trial_id),
        started_at=record.started_at,
    )
    for row in rows:
        run.log({**row, **_when(record, row)})
    state = TrialState.PREEMPTED if record.state is TrialState.RUNNING else record.state
    reason = record.reason or ("its agent was killed" if record.state is TrialState.RUNNING else None)
    run.finish(TrialOutcome(state, record.result, reason))
    return not run.had_trouble


def _when(record: TrialRecord, row: Mapping[str, float]) -> dict[str, float]:
    # The history does not say when an epoch ended; spread evenly over the trial's time is near enough for a time axis.
    result = record.result
    if record.started_at is None or record.ended_at is None or result is None or not result.epochs:
        return {}
    return {"_timestamp": record.started_at + (record.ended_at - record.started_at) * row["epoch"] / result.epochs}


@contextlib.contextmanager
def _alone(sweep: Sweep) -> Iterator[None]:
    with (sweep.folder / ".sync.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another sync of sweep {sweep.id} is under way", hint="wait for it, or end it"
            ) from None
        yield
