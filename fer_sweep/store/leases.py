"""The trials one agent holds: whose each is, until when, and a thread that keeps them its own while they run.

A trial belongs to whoever holds its lease: an owner, an attempt and a time. The lease is renewed by every report;
when it has run out, or its owner was a process of this host that is no longer there, the trial may be handed out again
as the next attempt, and the late report of the former owner is refused.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping

from fer_sweep import owners
from fer_sweep.errors import InputError, LostTrial, StorageError
from fer_sweep.records import TrialState
from fer_sweep.store.database import Database, Row, through_restarts
from fer_sweep.store.engine import ConnectionLost, Interrupted
from fer_sweep.store.trials import Lease, Ledger

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""How long a trial of which nothing is heard stays its owner's."""
SHORTEST_LEASE_S, LONGEST_LEASE_S = 2.0, 86_400.0
"""An agent says at least once a second what it runs, so a shorter lease would take trials from healthy agents."""
KEPT_LEASES = 10
"""An agent that has said nothing of its trials for so many leases hangs, and loses them."""


def lease_seconds() -> float:
    """The lease of this process's trials: ``FERSWEEP_LEASE_S``, or LEASE_S.

    Raises:
        InputError: The variable holds no such time.
    """
    given = os.environ.get("FERSWEEP_LEASE_S")
    if not given:
        return LEASE_S
    try:
        seconds = float(given)
    except ValueError:
        seconds = float("nan")
    if not SHORTEST_LEASE_S <= seconds <= LONGEST_LEASE_S:
        raise InputError(
            f"FERSWEEP_LEASE_S={given}: not a number of seconds from {SHORTEST_LEASE_S:g} to {LONGEST_LEASE_S:g}",
            hint=f"unset it for the usual {LEASE_S:g} s",
        )
    return seconds


class Leases:
    """One agent's leases on trials of one sweep; safe to share among its threads."""

    def __init__(
        self, database: Database, sweep_id: str, *, owner: str | None, lease_s: float, clock: Callable[[], float] | None
    ) -> None:
        """Hold nothing yet.

        Args:
            database: Where the sweep is; it stays open.
            sweep_id: Whose trials.
            owner: Names this agent among all agents; this process if not given.
            lease_s: A trial not reported on for so many seconds may be handed to another agent.
            clock: Unix time, seconds; the database's if not given.
        """
        self._database = database
        self._sweep_id = sweep_id
        self._owner = owner or owners.this_process()
        self._lease_s = lease_s
        self.clock = clock or database.clock
        """Unix time, seconds."""
        self._lock = threading.RLock()
        self._held: dict[int, int] = {}
        """Trials handed to this agent, by number, with the attempt it is on."""
        self._running: set[int] = set()
        """Those of them that have not ended yet."""
        self._taken: dict[int, Lease] = {}
        """Trials that the open transaction hands to this agent, by number."""
        self._unsure: dict[int, Lease] = {}
        """Those of transactions of whose end nothing was heard: what was handed out so runs nowhere."""
        self._heard_at = self.clock()
        """When this agent last reported on a trial."""
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    @contextlib.contextmanager
    def ledger(self, *, write: bool = True) -> Iterator[Ledger]:
        """The sweep's trials in one transaction.

        Raises:
            ConnectionLost: The connection to the database server broke; see ``through_restarts``.
            StorageError: The database cannot be read or written; nothing has changed.
        """
        with self._lock:
            self._taken = {}
            try:
                with self._database.transaction(write=write) as connection:
                    yield Ledger(connection, self._sweep_id)
            except ConnectionLost:
                self._unsure.update(self._taken)
                raise
            self._keep_taken()

    def new(self, slot: str, attempt: int) -> Lease:
        """A lease of this agent from now on."""
        return Lease(self._owner, slot, attempt, self._until())

    def hold(self, number: int, lease: Lease) -> None:
        """Once the open transaction is written, count a trial as this agent's and running, and keep its lease."""
        self._taken[number] = lease

    def ended(self, number: int) -> None:
        """The trial's attempt is over: its lease needs no keeping."""
        with self._lock:
            self._running.discard(number)

    def latest(self, ledger: Ledger, number: int) -> Row | None:
        """The trial if this agent has it, or had it last, whatever its state."""
        return ledger.held(number, self._owner, self._held.get(number, 0))

    def own(self, ledger: Ledger, number: int, trial_id: str) -> Row:
        """A trial that is this agent's and running.

        Raises:
            LostTrial: It is not.
        """
        self._heard_at = self.clock()
        row = self.latest(ledger, number)
        if row is None or row["state"] != TrialState.RUNNING:
            raise LostTrial(
                f"trial {trial_id} of sweep {self._sweep_id} is not this agent's",
                hint="another agent took it over after nothing was heard of it; what that one reports counts",
            )
        return row

    def renew(self, ledger: Ledger, number: int) -> None:
        """The trial is this agent's for another ``lease_s``."""
        ledger.renew(number, self._until())

    def report(self, ledger: Ledger, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """The same, with what the trial reports, if anything; returns whether it is the first report of this epoch."""
        if not metrics:
            self.renew(ledger, number)
            return False
        return not ledger.record_epoch(number, epoch, metrics, lease_until=self._until())

    def _until(self) -> float:
        return self.clock() + self._lease_s

    def is_fresh(self, row: Row) -> bool:
        """Whether most of a trial's lease is still to come, so that it need not be renewed yet."""
        return bool(row["lease_until"] - self.clock() > self._lease_s / 2)

    def free(self, ledger: Ledger) -> Iterator[Row]:
        """The trials that run or are to be gone on with and that nobody has in hand, in order."""
        candidates = ledger.perhaps_free(self._owner, owners.on_this_host(), self.clock())
        return (row for row in candidates if not self.is_in_hand(row))

    def is_in_hand(self, row: Row) -> bool:
        """Whether somebody works on this trial, this agent or another one that may still be there."""
        number = row["number"]
        if row["state"] != TrialState.RUNNING:
            return False
        if row["owner"] == self._owner and number in self._running and self._held[number] == row["attempt"]:
            return True  # by ourselves, however late we are
        if (unsure := self._unsure.get(number)) is not None and _is_by(row, unsure):
            return False
        return row["lease_until"] > self.clock() and not owners.is_dead(row["owner"])

    def close(self) -> None:
        """Give up the leases that are still held, so that no agent has to wait for them to expire."""
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()  # it may be in the middle of a transaction
        with self._lock:
            try:
                if self._held or self._unsure:
                    self._give_up()
            except Interrupted as error:
                log.warning("%s; this agent's trials are free once it has ended or their leases have", error)
            finally:
                self._held.clear()

    @through_restarts
    def _give_up(self) -> None:
        with self.ledger() as ledger:
            unsure = {number: lease.attempt for number, lease in self._unsure.items()}
            for number, attempt in {**unsure, **self._held}.items():
                if ledger.held(number, self._owner, attempt):
                    ledger.renew(number, until=0.0)

    def _keep_taken(self) -> None:
        for number, lease in self._taken.items():
            self._held[number] = lease.attempt
            self._running.add(number)
            self._unsure.pop(number, None)
            self._heard_at = self.clock()
        if self._taken and self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, daemon=True, name="lease-keeper")
            self._keeper.start()

    def renew_running(self) -> None:
        """Renew the leases of what runs, unless the agent has been silent for KEPT_LEASES leases.

        An agent that is held up, by a slow server say, keeps its trials; a stopped or dead process renews nothing.
        """
        if self.clock() - self._heard_at > KEPT_LEASES * self._lease_s:
            return
        with contextlib.suppress(StorageError), self.ledger() as ledger:
            for number in self._running:
                row = self.latest(ledger, number)
                if row is not None and row["state"] == TrialState.RUNNING:
                    self.renew(ledger, number)

    def _keep(self) -> None:
        while not self._closing.wait(self._lease_s / 4):
            self.renew_running()


def _is_by(row: Row, lease: Lease) -> bool:
    """Whether a trial was last handed out by this very lease, to the moment."""
    return (row["owner"], row["attempt"], row["lease_until"]) == (lease.owner, lease.attempt, lease.until)
