"""The interface of an opened sweep, and what both kinds share."""

import functools
import math
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.errors import InputError, NothingToDo, ServerError
from fer_sweep.files import can_be_resumed, sweep_folder, trial_folder
from fer_sweep.records import SweepState, TrialRecord, TrialRequest
from fer_sweep.search import Search
from fer_sweep.store.database import Database
from fer_sweep.store.engine import Row
from fer_sweep.store.trials import Ledger, Settings, ledger_of
from fer_sweep.sweeps.entries import SweepEntry
from fer_sweep.wandb_client.account import place, tracking_mode
from fer_sweep.wandb_client.tracking import RunLabels, TrackedRun, Tracker

if TYPE_CHECKING:
    from fer_sweep.sweeps.data import SweepData
    from fer_sweep.wandb_client.client import WandbServer
    from fer_sweep.wandb_client.messages import SweepPath
    from fer_sweep.wandb_client.sweeps import Made


OPEN_STATES = (SweepState.RUNNING, SweepState.PAUSED)
"""States of a sweep in which an agent can work on it."""


class OpenSearch(Search, Protocol):
    """A search that must be closed."""

    def close(self) -> None:
        """Release the leases that are still held."""
        ...


@dataclass(frozen=True)
class Remaining:
    """The trials of a sweep that are left."""

    free: int | None
    """Trials that an agent could start or resume now; None if unknown."""
    leased: int = 0
    """Trials that an agent is training."""


class Sweep(ABC):
    """An opened sweep: its file is parsed when it is read or changed, over one connection. Thread-safe.

    File, database and HTTP client are opened on first use. Methods raise StorageError if the database cannot be used
    and InputError if it does not have this sweep; where a W&B server is needed, LoginError without a valid key and
    ServerError if it does not answer.
    """

    searched_by_server: bool
    """Whether a W&B server searches it, and so itself stops runs that are stopped on their pages."""

    def __init__(self, entry: SweepEntry) -> None:
        self.entry = entry
        self.id = entry.id
        self.folder = sweep_folder(entry.id)
        self._spec: str | None = None
        """The sweep file as it was read last, unparsed."""
        self.end_waiting: Callable[[], bool] = lambda: False
        """Asked while a database server does not answer; where it is true, waiting ends with ``Interrupted``."""
        self.may_pause = True
        """Whether the search of this process's agent may pause trials."""
        self.time_left_s: Callable[[], float] = lambda: math.inf
        """For the training of this process's agent, seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database and to the W&B server."""
        for name in ("database", "server"):
            if (connection := self.__dict__.pop(name, None)) is not None:
                connection.close()

    @functools.cached_property
    def database(self) -> Database:
        """The database with its trials."""
        return Database(self.entry.database, end_waiting=lambda: self.end_waiting())

    def ledger(self, *, write: bool = False) -> AbstractContextManager[Ledger]:
        """Its rows in the database, in one transaction."""
        return ledger_of(self.database, self.id, write=write)

    @functools.cached_property
    def server(self) -> "WandbServer":
        """The W&B server in use."""
        from fer_sweep.wandb_client.sweeps import connect  # only here: httpx and wandb take half a second to import

        return connect()

    @functools.cached_property
    def file(self) -> SweepFile:
        """The sweep file with the constants and the cap of the command line, as of the latest ``settings``."""
        return self.settings().file

    @functools.cached_property
    def space(self) -> Space:
        """Its search space."""
        return Space.from_sweep(self.file)

    @functools.cached_property
    def data(self) -> "SweepData":
        """Its data sets."""
        from fer_sweep.sweeps.data import SweepData  # only here: reading a sweep needs no images

        return SweepData(self.entry, self.file, self.space)

    def settings(self) -> Settings:
        """Its state, limits and file as they are now; ``file``, ``space`` and ``data`` follow a change of the file."""
        with self.ledger() as ledger:
            found = ledger.settings()
        if found.spec != self._spec:
            self._spec = found.spec
            for name in ("file", "space", "data", "_size"):
                vars(self).pop(name, None)
        return found

    @property
    def seed(self) -> int:
        """The seed of an embedded search."""
        return self.settings().seed

    @property
    @abstractmethod
    def sampler(self) -> str | None:
        """The algorithm of an embedded search, see ``config.samplers``; None where a server decides."""

    @property
    @abstractmethod
    def searched_by(self) -> str:
        """What proposes its trials, in words."""

    @property
    def argument(self) -> str:
        """Its name for commands on any host."""
        return self.entry.path or self.id

    @property
    def planned(self) -> int | None:
        """The largest number of trials as of now: its cap or the number of configurations; None if unlimited."""
        if self.settings().steered is not None:
            return self.file.run_cap  # some trials may be of no configuration of the space
        return min((size for size in (self.file.run_cap, self._size) if size is not None), default=None)

    @functools.cached_property
    def _size(self) -> int | None:
        return self.space.grid_size() if self.file.method == "grid" else self.space.size()

    def trial_folder(self, trial_id: str) -> Path:
        """The folder of one of its trials."""
        return trial_folder(self.id, trial_id)

    def storage_command(self, url: str) -> str:
        """How to create such a sweep with its state in another database."""
        return f"FERSWEEP_STORAGE={url}" if self.searched_by_server else f"fersweep create --storage {url}"

    @property
    def choosing_command(self) -> str:
        """The command, without ``fersweep``, that compares its trials: a confirmation's are seeds of one winner."""
        return "best" if self.entry.confirms is None else "confirm"

    def check_not_cancelled(self) -> None:
        """Raise ``NothingToDo`` if it is cancelled."""
        if self.state == SweepState.CANCELLED:
            raise NothingToDo(f"sweep {self.id} is cancelled for good", hint=self.successor)

    @property
    def successor(self) -> str:
        """The hint for a sweep that starts no more trials."""
        file = shlex.quote(str(self.folder / "sweep.yaml"))
        return f"a new one: fersweep create {file}, with --from {self.id} to learn from this one"

    # State and trials

    @property
    @abstractmethod
    def state(self) -> str:
        """running, paused, stopped, cancelled, finished; a W&B server shows stopped as finished, or has it no more."""

    @abstractmethod
    def set_state(self, state: str) -> None:
        """Pause (``paused``), resume (``running``), stop (``stopped``) or cancel (``cancelled``) it.

        Raises:
            InputError: It cannot go from its present state to this one.
        """

    def retry(self, trials: Collection[str] = ()) -> Sequence[str]:
        """Queue failed trials again, each resumed from its last checkpoint; a finished sweep runs again.

        Args:
            trials: Only these; all failed ones if empty.

        Returns:
            The trials that were queued.

        Raises:
            InputError: One of these has not failed.
            NothingToDo: The sweep is cancelled.
        """
        self.check_not_cancelled()
        with self.ledger() as ledger:
            failed = {self.trial_of(row): row["number"] for row in ledger.failed()}
        if others := sorted(set(trials) - failed.keys()):
            known = ", ".join(failed) or "none"
            raise InputError(f"trial {', '.join(others)} of sweep {self.id} has not failed", hint=f"failed: {known}")
        chosen = {trial: number for trial, number in failed.items() if not trials or trial in trials}
        if chosen:
            self._requeue(chosen)
        return list(chosen)

    def _requeue(self, numbers: Mapping[str, int]) -> None:
        """Queue trials, by number, and let a finished sweep run again."""
        with self.ledger(write=True) as ledger:
            for number in numbers.values():
                ledger.requeue(number)
            ledger.reopen_sweep()

    @abstractmethod
    def trials(self) -> Sequence[TrialRecord]:
        """Every trial, oldest first."""

    def trial(self, trial_id: str) -> TrialRecord:
        """One of its trials; raises ``InputError``, naming its trials, if it has none of this id."""
        trials = {record.trial_id: record for record in self.trials()}
        if trial_id not in trials:
            hint = f"its trials: {', '.join([*trials][:20]) or 'none yet'}"
            raise InputError(f"sweep {self.id} has no trial {trial_id}", hint=hint)
        return trials[trial_id]

    def glance(self, *, ask_server: bool = True) -> tuple[str | None, Sequence[TrialRecord]]:
        """Its state and trials without a long wait: state None and the trials known here if a server does not answer.

        Args:
            ask_server: Ask a server that searches it, once.
        """
        return self.state, self.trials()

    @abstractmethod
    def remaining(self) -> Remaining:
        """How many trials are left."""

    @abstractmethod
    def trial_of(self, row: Row) -> str:
        """The trial id of a database row."""

    @abstractmethod
    def _number(self, ledger: Ledger, trial_id: str) -> int | None:
        """The number of a trial in the database; None if it has no such trial."""

    def reports(self, trial_id: str) -> Sequence[Mapping[str, float]]:
        """A trial's metrics by epoch, as its agent reported them."""
        with self.ledger() as ledger:
            number = self._number(ledger, trial_id)
            return [] if number is None else ledger.reports_of(number)

    # Search and tracking, for an agent

    @abstractmethod
    def search(self) -> OpenSearch:
        """The search of one agent; close it before the sweep."""

    def _can_be_resumed(self, trial_id: str) -> bool:
        return can_be_resumed(self.id, trial_id)

    @abstractmethod
    def run_id(self, trial_id: str) -> str:
        """The id of a trial's W&B run."""

    def tracker(
        self,
        *,
        keep_models: bool = False,
        note: Callable[[str], None] = lambda text: None,
        on_end: Callable[[str, bool], None] = lambda trial_id, whole: None,
    ) -> Callable[[TrialRequest], TrackedRun]:
        """A function that starts the W&B run of a trial, in the mode that wandb is set to.

        Args:
            keep_models: Upload the best weights of each complete trial.
            note: Called with the address of the runs.
            on_end: Called at the end of each run with the trial and whether the run is complete.

        Raises:
            InputError: A W&B server searches this sweep, but runs are not online.
        """
        mode = tracking_mode()
        if self.searched_by_server and mode != "online":
            raise InputError(
                f"the W&B server that searches sweep {self.id} needs the runs of its trials, but runs are {mode}",
                hint="unset WANDB_MODE or run `wandb online`; for offline runs, use the search optuna",
            )
        trials: dict[str, str] = {}
        tracker = Tracker(
            keep_models=keep_models,
            obey_pages=not self.searched_by_server,
            on_end=lambda run_id, whole: on_end(trials[run_id], whole),
        )
        labels = RunLabels(self.id, *place(self.file.entity, self.file.project))
        if mode == "online":
            try:
                page = self.page()
                note(f"runs appear at {page.url}")
                labels = RunLabels(self.id, page.path.entity, page.path.project, page.path.id)
            except ServerError as error:
                note(f"{error}; runs are tracked offline")
                tracker.go_offline(float("inf"))

        def track(request: TrialRequest) -> TrackedRun:
            run_id = self.run_id(request.trial_id)
            trials[run_id] = request.trial_id
            config = request.config.model_dump(mode="json")
            own = labels.of_trial(request.trial_id, config)
            return tracker.start(own, config, run_id=run_id, folder=self.trial_folder(request.trial_id))

        return track

    # On the W&B server

    @abstractmethod
    def page(self) -> "Made":
        """The sweep on the W&B server that its runs belong to; created there for an embedded search."""

    @abstractmethod
    def known_page(self, server: str) -> "SweepPath | None":
        """Its page on the server of this address, if known; makes no request."""

    @abstractmethod
    def close_page(self) -> None:
        """Mark the sweep as finished on its page if it is over; a failure is only logged."""

    def uploads(self, record: TrialRecord) -> bool:
        """Whether ``fersweep sync`` on this host uploads the run of a trial."""
        return True
