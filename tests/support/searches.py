"""Sweeps, searches and databases as tests open them; the fixture ``close_sweeps`` closes them at the test's end."""

import contextlib
from pathlib import Path
from typing import Any

from fer_sweep.search.embedded import OptunaSearch
from fer_sweep.store.database import Database, default_storage
from fer_sweep.store.engine import NothingCreated
from fer_sweep.store.sweeps import set_sweep_state
from fer_sweep.store.trials import ledger_of
from fer_sweep.sweeps import Sweep, open_sweep, opening

OPENED = contextlib.ExitStack()


class OwnSearch(OptunaSearch):
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


def database_at(storage: str | None = None) -> Database:
    """The database of this URL, or of this home."""
    return OPENED.enter_context(contextlib.closing(Database(storage or default_storage())))


def embedded_search(sweep_id: str, storage: str | None = None, **options: Any) -> OptunaSearch:
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
