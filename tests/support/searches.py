"""Sweeps, searches and databases as tests open them; the fixture ``close_sweeps`` closes them at the test's end."""

import contextlib
from pathlib import Path
from typing import Any

from fer_sweep.files import write_atomically
from fer_sweep.records import StopReason, TrialRequest, TrialState
from fer_sweep.search.embedded import EmbeddedSearch
from fer_sweep.store.database import Database, default_storage
from fer_sweep.store.engine import NothingCreated
from fer_sweep.store.sweeps import set_sweep_state
from fer_sweep.store.trials import ledger_of
from fer_sweep.sweeps import Sweep, open_sweep, opening
from fer_sweep.training.history import History
from tests.support.scripted_starter import metrics_of, outcome_of

OPENED = contextlib.ExitStack()


class OwnSearch(EmbeddedSearch):
    """A search that closes its database with itself."""

    def __init__(self, sweep_id: str, storage: str | None, **options: Any) -> None:
        self.database = Database(storage or default_storage())
        super().__init__(sweep_id, self.database, **options)

    def close(self) -> None:
        super().close()
        self.database.close()


def create(file: Path, **options: Any) -> Sweep:
    """A new sweep, opened."""
    return OPENED.enter_context(opening.create(file, **options))


def find(sweep_id: str | None = None) -> Sweep:
    """The sweep of this id, or the last one, opened."""
    return OPENED.enter_context(open_sweep(sweep_id))


def pause_trials(sweep: Sweep, count: int = 2) -> None:
    """Give so many new trials of a freeze-thaw sweep a turn, each by an agent of its own; they are paused."""
    for _ in range(count):
        # One that has paused a trial makes the next turn longer, as epochs take no time here.
        with contextlib.closing(sweep.search()) as search:
            request = search.next_trial("cpu0")
            assert isinstance(request, TrialRequest)
            folder = sweep.trial_folder(request.trial_id)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "config.json", request.config.model_dump_json())
            history = History(folder / "history.jsonl")
            for epoch in range(1, request.config.epochs):
                history.append(metrics_of(epoch))
                if search.report(request.trial_id, epoch, history.rows[-1]) is StopReason.PAUSED:
                    break
            write_atomically(folder / "last.ckpt", str(epoch))
            search.finish(request.trial_id, outcome_of(TrialState.PAUSED, epoch))


def database_at(storage: str | None = None) -> Database:
    """The database of this URL, or of this home."""
    return OPENED.enter_context(contextlib.closing(Database(storage or default_storage())))


def embedded_search(sweep_id: str, storage: str | None = None, **options: Any) -> EmbeddedSearch:
    """One agent's search of a sweep in the database of this URL, or of this home."""
    return OPENED.enter_context(contextlib.closing(OwnSearch(sweep_id, storage, **options)))


def state_in(storage: str, sweep_id: str) -> str:
    """The state of a sweep in a database."""
    with contextlib.closing(Database(storage)) as database, ledger_of(database, sweep_id) as ledger:
        return ledger.state()


def steer(storage: str, sweep_id: str, state: str) -> None:
    """Pause, resume (`running`), stop or cancel a sweep in a database."""
    with contextlib.closing(Database(storage)) as database:
        set_sweep_state(database, sweep_id, state)


def sweep_ids(storage: str) -> list[str]:
    """The sweeps in a database, oldest first."""
    try:
        with contextlib.closing(Database(storage)) as database, database.transaction(write=False) as connection:
            return [row["id"] for row in connection.rows("SELECT id FROM fersweep_sweeps ORDER BY position")]
    except NothingCreated:
        return []


def read_only(database: Path) -> None:
    """Keep SQLite from creating its shared memory beside a database, as a read-only folder does, also for root."""
    database.with_name(f"{database.name}-shm").symlink_to("/nonexistent/shm")
