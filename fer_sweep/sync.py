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
from fer_sweep.files import is_locked, sweep_folder, trial_folder
from fer_sweep.records import TrialOutcome, TrialRecord, TrialState
from fer_sweep.run_labels import Place, trial_labels
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.pages import close_page, page_of, runs_on_server
from fer_sweep.search.registry import open_search, reports_of
from fer_sweep.search.wandb_messages import ENDED_AS, ServerRun
from fer_sweep.tracking import Tracker
from fer_sweep.training.history import read_history

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


def sync(
    entry: SweepEntry,
    *,
    trials: Collection[str] = (),
    keep_models: bool = False,
    say: Callable[[str], None],
) -> Synced:
    """Bring every run of a sweep up to date on the W&B server in use.

    Args:
        entry: The sweep.
        trials: Only these; all if empty.
        keep_models: Upload the best weights of complete trials too.
        say: Gets a line for every run.

    Raises:
        LoginError: There is no key, or a wrong one.
        ServerError: The server does not answer, or stopped to.
        StorageError: Another sync of this sweep is under way.
    """
    with _alone(entry):
        page = page_of(entry)
        place = Place(page.path.entity, page.path.project, page.path.id)
        search = open_search(entry)
        try:
            chosen = [record for record in search.records() if not trials or record.trial_id in trials]
            records = [record for record in chosen if _is_ours(entry, record)]
        finally:
            search.close()
        there = {run.id: run for run in runs_on_server(page.path)}
        tracker = Tracker(mode="online", keep_models=keep_models, obey_pages=False)
        fates = {}
        for number, record in enumerate(records, start=1):
            rows = _history(entry, record.trial_id, say)
            known = there.get(entry.run_id(record.trial_id))
            fate = _fate(entry, record, rows, known)
            if fate in (Fate.UPLOADED, Fate.COMPLETED) and not _upload(tracker, place, entry, record, rows):
                raise ServerError(
                    f"the run of trial {record.trial_id} did not get through, the {number}th of {len(records)}",
                    hint="the same command goes on where this one stopped",
                )
            fates[record.trial_id] = fate
            say(f"{number}/{len(records)} trial {record.trial_id} ({record.state}, {len(rows)} epochs): {fate}")
    close_page(entry)
    return Synced(page.url, fates)


def _is_ours(entry: SweepEntry, record: TrialRecord) -> bool:
    if entry.search != "wandb":
        return True
    # Other hosts' trials are not here, and what is not ended is the server's affair, which hands it out again.
    ended = record.state not in (TrialState.RUNNING, TrialState.PREEMPTED)
    return ended and (trial_folder(entry.id, record.trial_id).is_dir() or bool(reports_of(entry, record.trial_id)))


def _history(entry: SweepEntry, trial_id: str, say: Callable[[str], None]) -> Sequence[Mapping[str, float]]:
    # What the database has is as good, should the trial's folder be gone or its history be damaged.
    try:
        return read_history(trial_folder(entry.id, trial_id) / "history.jsonl") or reports_of(entry, trial_id)
    except StorageError as error:
        if not (rows := reports_of(entry, trial_id)):
            raise
        say(f"note: {error}; taken from the database instead")
        return rows


def _fate(entry: SweepEntry, record: TrialRecord, rows: Sequence[Mapping[str, float]], known: ServerRun | None) -> Fate:
    if record.state is TrialState.RUNNING and is_locked(trial_folder(entry.id, record.trial_id) / ".lock"):
        return Fate.RUNNING
    if known is None:
        return Fate.UPLOADED
    state = TrialState.PREEMPTED if record.state is TrialState.RUNNING else record.state
    same_end = known.state in _UP_TO_DATE[state] and known.summary.get("state") == state
    lines = len(rows) + (record.result is not None)  # the confusion matrix has a line of its own
    return Fate.THERE if same_end and known.steps >= lines else Fate.COMPLETED


def _upload(
    tracker: Tracker, place: Place, entry: SweepEntry, record: TrialRecord, rows: Sequence[Mapping[str, float]]
) -> bool:
    run = tracker.start(
        trial_labels(entry.id, record.trial_id, record.config, place),
        record.config,
        run_id=entry.run_id(record.trial_id),
        folder=trial_folder(entry.id, record.trial_id),
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
def _alone(entry: SweepEntry) -> Iterator[None]:
    folder = sweep_folder(entry.id)
    with (folder / ".sync.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another sync of sweep {entry.id} is under way", hint="wait for it, or end it"
            ) from None
        yield
