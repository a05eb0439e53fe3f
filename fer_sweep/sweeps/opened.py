"""What every opened sweep has, whatever proposes its trials."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.errors import InputError, ServerError
from fer_sweep.files import can_be_resumed, sweep_folder, trial_folder
from fer_sweep.records import TrialRecord, TrialRequest
from fer_sweep.search import Search
from fer_sweep.store.database import Database, Row
from fer_sweep.store.sweeps import load_sweep, sweep_seed
from fer_sweep.store.trials import Ledger, SweepState
from fer_sweep.sweeps.data import SweepData
from fer_sweep.sweeps.entries import SweepEntry
from fer_sweep.wandb_client.account import tracking_mode
from fer_sweep.wandb_client.run_labels import Place, trial_labels
from fer_sweep.wandb_client.tracking import TrackedRun, Tracker

if TYPE_CHECKING:
    from fer_sweep.wandb_client.messages import SweepPath
    from fer_sweep.wandb_client.sweeps import Made


class OpenSearch(Search, Protocol):
    """A search, to be closed when done."""

    def close(self) -> None:
        """Give up the leases that are still held."""
        ...


@dataclass(frozen=True)
class Remaining:
    """The trials of a sweep that have not ended."""

    free: int | None
    """Those that an agent could start or resume now; None where the number is unknown."""
    leased: int = 0
    """Those that an agent is training."""


class Sweep(ABC):
    """A sweep, opened: its file parsed once, its state over one database connection. Safe to share among threads."""

    def __init__(self, entry: SweepEntry, *, waits: bool = True) -> None:
        """Open nothing yet: file and database are opened when they are first needed.

        Args:
            entry: The sweep.
            waits: Wait for a database server that does not answer; otherwise that is an error at once.
        """
        self.entry = entry
        self.id = entry.id
        self.folder = sweep_folder(entry.id)
        self._end_waiting: Callable[[], bool] = lambda: not waits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that were opened."""
        if (database := self.__dict__.pop("database", None)) is not None:
            database.close()

    @functools.cached_property
    def database(self) -> Database:
        """The database with its trials.

        Raises:
            StorageError: It cannot be opened.
        """
        return Database(self.entry.database, end_waiting=lambda: self._end_waiting())

    @functools.cached_property
    def file(self) -> SweepFile:
        """The sweep file as it was created, with the constants and the cap of the command line.

        Raises:
            InputError: The database does not have this sweep any more.
        """
        return load_sweep(self.database, self.id)

    @functools.cached_property
    def space(self) -> Space:
        """What it searches."""
        return Space.from_sweep(self.file)

    @property
    def seed(self) -> int:
        """The seed of an embedded search."""
        return sweep_seed(self.database, self.id)

    @functools.cached_property
    def data(self) -> SweepData:
        """Its data sets."""
        return SweepData(self.entry, self.file, self.space)

    @property
    def argument(self) -> str:
        """What commands on any host know it by."""
        return self.entry.path or self.id

    @property
    def planned(self) -> int | None:
        """How many trials it has at most: its cap, or all configurations there are; None if there is no end."""
        whole = self.space.grid_size() if self.file.method == "grid" else self.space.size()
        return min((size for size in (self.file.run_cap, whole) if size is not None), default=None)

    def trial_folder(self, trial_id: str) -> Path:
        """The folder of one of its trials."""
        return trial_folder(self.id, trial_id)

    # State and trials

    @property
    @abstractmethod
    def state(self) -> str:
        """Its state: running, paused, stopped, cancelled or finished; a server says finished for stopped.

        Raises:
            ServerError: Its server does not answer.
        """

    @property
    def is_open(self) -> bool:
        """Whether it hands out trials, now or once it is resumed from a pause."""
        return self.state in ("running", "paused")

    @abstractmethod
    def set_state(self, state: str) -> None:
        """Pause (``paused``), resume (``running``), stop (``stopped``) or cancel (``cancelled``) it.

        Raises:
            InputError: It cannot go from its present state to this one.
            ServerError: Its server does not answer.
        """

    def retry(self, trials: Collection[str] = ()) -> Sequence[str]:
        """Queue failed trials again, each resumed from its last checkpoint; a finished sweep runs again.

        Args:
            trials: Only these; all failed ones if empty.

        Returns:
            The trials that were queued.

        Raises:
            InputError: One of these has not failed, or the sweep is cancelled.
            ServerError: Its server does not answer.
        """
        if self.state == SweepState.CANCELLED:
            raise InputError(f"sweep {self.id} is cancelled for good", hint="create a new sweep from the same file")
        with self.database.transaction(write=False) as connection:
            failed = {self.trial_of(row): row["number"] for row in Ledger(connection, self.id).failed()}
        if others := sorted(set(trials) - failed.keys()):
            known = ", ".join(failed) or "none"
            raise InputError(f"trial {', '.join(others)} of sweep {self.id} has not failed", hint=f"failed: {known}")
        chosen = {trial: number for trial, number in failed.items() if not trials or trial in trials}
        if chosen:
            self._requeue(chosen)
        return list(chosen)

    def _requeue(self, numbers: Mapping[str, int]) -> None:
        """Queue trials, by number, and let a finished sweep run again."""
        with self.database.transaction(write=True) as connection:
            ledger = Ledger(connection, self.id)
            for number in numbers.values():
                ledger.requeue(number)
            ledger.reopen_sweep()

    @abstractmethod
    def trials(self) -> Sequence[TrialRecord]:
        """Every trial, oldest first."""

    @abstractmethod
    def remaining(self) -> Remaining:
        """How much of it is left.

        Raises:
            InputError: The database does not have this sweep any more.
            StorageError: The database does not answer.
        """

    @abstractmethod
    def row_of(self, ledger: Ledger, trial_id: str) -> Row | None:
        """A trial in the database; None if it is not there."""

    @abstractmethod
    def trial_of(self, row: Row) -> str:
        """The id of the trial in a row of the database."""

    def reports(self, trial_id: str) -> Sequence[Mapping[str, float]]:
        """A trial's metrics by epoch, as its agent reported them.

        Raises:
            StorageError: The database cannot be read.
        """
        with self.database.transaction(write=False) as connection:
            ledger = Ledger(connection, self.id)
            row = self.row_of(ledger, trial_id)
            return ledger.reports_of(row["number"]) if row else []

    # Search and tracking, for an agent

    def search(self, *, end_waiting: Callable[[], bool] | None = None) -> OpenSearch:
        """The search, for one agent; close it before the sweep.

        Args:
            end_waiting: Asked while a database server is waited for; where it is true, ``Interrupted`` is raised.
        """
        if end_waiting is not None:
            self._end_waiting = end_waiting
        return self._search(functools.partial(can_be_resumed, self.id))

    @abstractmethod
    def _search(self, resumable: Callable[[str], bool]) -> OpenSearch: ...

    @abstractmethod
    def run_id(self, trial_id: str) -> str:
        """The id of a trial's W&B run."""

    @abstractmethod
    def _check_tracking(self, mode: str) -> None:
        """See that runs may be tracked as wandb's switches say."""

    searched_by_server: bool
    """Whether the search itself hears of runs that are stopped on their pages."""

    def tracker(
        self,
        *,
        keep_models: bool = False,
        note: Callable[[str], None] = lambda text: None,
        on_end: Callable[[str, bool], None] = lambda trial_id, whole: None,
    ) -> Callable[[TrialRequest], TrackedRun]:
        """What starts the W&B run of each trial, by wandb's own switches.

        Args:
            keep_models: Upload the best weights of each complete trial.
            note: Gets a line on where the runs appear.
            on_end: Called at the end of each trial's run, with whether all of it is where it should be.

        Raises:
            InputError: A W&B server searches this sweep, but runs are not to go there.
            LoginError: Runs are to go online, but there is no key or a wrong one.
        """
        mode = tracking_mode()
        self._check_tracking(mode)
        trials: dict[str, str] = {}
        tracker = Tracker(
            keep_models=keep_models,
            obey_pages=not self.searched_by_server,
            on_end=lambda run_id, whole: on_end(trials[run_id], whole),
        )
        place = Place.from_file(self.file)
        if mode == "online":
            try:
                page = self.page()
                note(f"runs appear at {page.url}")
                place = Place(page.path.entity, page.path.project, page.path.id)
            except ServerError as error:
                note(f"{error}; runs are tracked offline")
                tracker.out_of_reach(for_good=True)

        def track(request: TrialRequest) -> TrackedRun:
            run_id = self.run_id(request.trial_id)
            trials[run_id] = request.trial_id
            config = request.config.model_dump(mode="json")
            labels = trial_labels(self.id, request.trial_id, config, place)
            return tracker.start(labels, config, run_id=run_id, folder=self.trial_folder(request.trial_id))

        return track

    # On the W&B server

    @abstractmethod
    def page(self) -> "Made":
        """The sweep on the W&B server that its runs belong to; made there for an embedded search.

        Raises:
            LoginError: There is no key, or a wrong one.
            ServerError: The server does not answer.
        """

    @abstractmethod
    def known_page(self, server: str) -> "SweepPath | None":
        """Where its page on a server is, if it has one there; asks no server.

        Args:
            server: The server's address.
        """

    @abstractmethod
    def close_page(self) -> None:
        """Show the sweep as finished on its page, if it is over; done later if the server does not answer."""

    @abstractmethod
    def uploads(self, record: TrialRecord) -> bool:
        """Whether ``fersweep sync`` on this host is to upload the run of a trial."""

    @property
    @abstractmethod
    def upload_command(self) -> str:
        """The command that brings its first runs to the server: ``sync`` or ``agent``."""

    @abstractmethod
    def storage_command(self, url: str) -> str:
        """How to make such a sweep with its state in another database."""
