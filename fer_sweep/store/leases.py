"""Fencing leases: one agent's exclusive ownership of its running trials, and the thread that renews it.

A lease has an owner, an attempt and an expiry. Every report renews it. Once it has expired, or its owner was a process
of this host that has died, another agent may reclaim the trial as its next attempt, and late reports of the former
owner are refused.
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
"""How long a lease lasts without renewal."""
SHORTEST_LEASE_S, LONGEST_LEASE_S = 2.0, 86_400.0
"""Agents send a heartbeat every second, so a shorter lease would expire under healthy agents."""
KEPT_LEASES = 10
"""An agent whose loop sent no heartbeat for so many leases hangs, and its leases are no longer renewed."""


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
        """Hold no lease yet.

        Args:
            database: The sweep's database; it stays open.
            sweep_id: The sweep.
            owner: The name of this agent among all agents; that of this process if not given.
            lease_s: A trial without a report for so many seconds may be reclaimed by another agent.
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
        """This agent's trials by number, with their attempts."""
        self._running: set[int] = set()
        """Those of them that are running."""
        self._taken: dict[int, Lease] = {}
        """Leases that the open transaction takes, by number."""
        self._unsure: dict[int, Lease] = {}
        """Leases whose commit is uncertain, since the connection broke; their trials run nowhere."""
        self._heard_at = self.clock()
        """When this agent last sent a report or heartbeat."""
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
        """Take a lease, and renew it from the commit of the open transaction on."""
        self._taken[number] = lease

    def ended(self, number: int) -> None:
        """Stop renewing the lease of a trial whose attempt has ended."""
        with self._lock:
            self._running.discard(number)

    def latest(self, ledger: Ledger, number: int) -> Row | None:
        """The trial if its latest attempt is this agent's, whatever its state."""
        return ledger.held(number, self._owner, self._held.get(number, 0))

    def own(self, ledger: Ledger, number: int, trial_id: str) -> Row:
        """A running trial of this agent.

        Raises:
            LostTrial: Another agent has reclaimed it, or it is not running.
        """
        self._heard_at = self.clock()
        row = self.latest(ledger, number)
        if row is None or row["state"] != TrialState.RUNNING:
            raise LostTrial(
                f"trial {trial_id} of sweep {self._sweep_id} is not this agent's",
                hint="its lease expired and another agent reclaimed it; only that agent's reports count",
            )
        return row

    def renew(self, ledger: Ledger, number: int) -> None:
        """Renew a trial's lease for another ``lease_s``."""
        ledger.renew(number, self._until())

    def report(self, ledger: Ledger, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Renew the lease and record metrics, if any; returns whether it is the first report of this epoch."""
        if not metrics:
            self.renew(ledger, number)
            return False
        return not ledger.record_epoch(number, epoch, metrics, lease_until=self._until())

    def _until(self) -> float:
        return self.clock() + self._lease_s

    def is_fresh(self, row: Row) -> bool:
        """Whether more than half of a trial's lease is left, so that it need not be renewed yet."""
        return bool(row["lease_until"] - self.clock() > self._lease_s / 2)

    def free(self, ledger: Ledger) -> Iterator[Row]:
        """Unleased trials that are running or preempted, in order."""
        candidates = ledger.maybe_unleased(self._owner, owners.on_this_host(), self.clock())
        return (row for row in candidates if not self.is_in_hand(row))

    def is_in_hand(self, row: Row) -> bool:
        """Whether this agent, or another one that may still be alive, holds the trial's lease."""
        number = row["number"]
        if row["state"] != TrialState.RUNNING:
            return False
        if row["owner"] == self._owner and number in self._running and self._held[number] == row["attempt"]:
            return True  # ours, even if we are late to renew it
        if (unsure := self._unsure.get(number)) is not None and _is_by(row, unsure):
            return False
        return row["lease_until"] > self.clock() and not owners.is_dead(row["owner"])

    def close(self) -> None:
        """Release the leases, so that no agent has to wait for them to expire."""
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()  # it may be in the middle of a transaction
        with self._lock:
            try:
                if self._held or self._unsure:
                    self._give_up()
            except Interrupted as error:
                log.warning("%s; this agent's trials are free once it has exited or their leases have expired", error)
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
        """Renew the leases of running trials, unless the agent has been silent for KEPT_LEASES leases.

        An agent that is delayed, for example by a slow server, keeps its trials; a paused or dead one does not.
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
    """Whether a trial's current lease is exactly this one."""
    return (row["owner"], row["attempt"], row["lease_until"]) == (lease.owner, lease.attempt, lease.until)
