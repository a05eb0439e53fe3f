"""The leases of one agent: exclusive ownership of running trials, with expiry, and a thread that renews them.

A lease names an owner, an attempt and a time. Every report renews it. Once it has expired, or its owner was a process
of this host that is dead, another agent may reclaim the trial as the next attempt; late reports of the former owner are
refused.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping

from fer_sweep import owners
from fer_sweep.errors import InputError, LostTrial, StorageError
from fer_sweep.records import TrialState
from fer_sweep.store.database import Database, through_restarts
from fer_sweep.store.engine import ConnectionLost, Interrupted, Row
from fer_sweep.store.trials import Lease, Ledger

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds without a report or heartbeat after which a trial's lease expires."""
SHORTEST_LEASE_S, LONGEST_LEASE_S = 2.0, 86_400.0
"""An agent sends heartbeats every second, so a shorter lease would expire under healthy agents."""
KEPT_LEASES = 10
"""Leases of a hung agent, which neither reports nor sends heartbeats, are renewed for so many times their length."""


def lease_seconds() -> float:
    """The lease of this process's trials: ``FERSWEEP_LEASE_S``, or LEASE_S.

    Raises:
        InputError: The variable is no usable time.
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
            database: The database; it stays open.
            sweep_id: The sweep.
            owner: Names this agent among all agents; this process if not given.
            lease_s: Seconds until a lease expires.
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
        """The attempt of every trial handed to this agent, by number."""
        self._running: set[int] = set()
        """The numbers of those that have not ended yet."""
        self._taken: dict[int, Lease] = {}
        """What the open transaction hands to this agent, by number."""
        self._unsure: dict[int, Lease] = {}
        """The same of transactions whose commit is in doubt: these attempts run nowhere."""
        self._heartbeat_at = self.clock()
        """When this agent last reported or sent a heartbeat."""
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    @contextlib.contextmanager
    def ledger(self, *, write: bool = True) -> Iterator[Ledger]:
        """The sweep's trials in one transaction; see ``Database.transaction``."""
        with self._lock:
            self._taken = {}
            try:
                with self._database.transaction(write=write) as connection:
                    yield Ledger(connection, self._sweep_id)
            except ConnectionLost:
                self._unsure.update(self._taken)
                raise
            for number, lease in self._taken.items():
                self._held[number] = lease.attempt
                self._running.add(number)
                self._unsure.pop(number, None)
                self._heartbeat_at = self.clock()
            if self._taken and self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, daemon=True, name="lease-keeper")
                self._keeper.start()

    def new(self, slot: str, attempt: int) -> Lease:
        """A lease of this agent from now on."""
        return Lease(self._owner, slot, attempt, self._until())

    def hold(self, number: int, lease: Lease) -> None:
        """Hold a lease and renew it, once the open transaction is committed."""
        self._taken[number] = lease

    def ended(self, number: int) -> None:
        """The trial's attempt is over: its lease is no longer renewed."""
        with self._lock:
            self._running.discard(number)

    def latest(self, ledger: Ledger, number: int) -> Row | None:
        """The trial, whatever its state, if its latest attempt is this agent's."""
        return ledger.held(number, self._owner, self._held.get(number, 0))

    def own(self, ledger: Ledger, number: int, trial_id: str) -> Row:
        """A trial that this agent runs.

        Raises:
            LostTrial: It does not.
        """
        self._heartbeat_at = self.clock()
        row = self.latest(ledger, number)
        if row is None or row["state"] != TrialState.RUNNING:
            raise LostTrial(
                f"trial {trial_id} of sweep {self._sweep_id} is not this agent's",
                hint="another agent reclaimed it after its lease expired; what that one reports counts",
            )
        return row

    def report(self, ledger: Ledger, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Renew the lease and record the metrics, if any; returns whether the epoch is reported for the first time."""
        if not metrics:
            ledger.renew(number, self._until())
            return False
        return ledger.record_epoch(number, epoch, metrics, self._until())

    def is_fresh(self, row: Row) -> bool:
        """Whether more than half of a trial's lease is left, so that it need not be renewed yet."""
        return bool(row["lease_until"] - self.clock() > self._lease_s / 2)

    def free(self, ledger: Ledger) -> Iterator[Row]:
        """The unleased trials that are running or preempted, in order."""
        candidates = ledger.perhaps_free(self._owner, owners.on_this_host(), self.clock())
        return (row for row in candidates if not self.is_leased(row))

    def is_leased(self, row: Row) -> bool:
        """Whether this agent runs the trial, or another one that may be alive."""
        number = row["number"]
        if row["state"] != TrialState.RUNNING:
            return False
        if row["owner"] == self._owner and number in self._running and self._held[number] == row["attempt"]:
            return True  # this agent runs it, even if its lease has expired
        if (unsure := self._unsure.get(number)) is not None and _is_by(row, unsure):
            return False
        return row["lease_until"] > self.clock() and not owners.is_dead(row["owner"])

    def close(self) -> None:
        """Release the leases that are still held, so that no agent has to wait for them to expire."""
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()  # it may be in the middle of a transaction
        with self._lock:
            try:
                if self._held or self._unsure:
                    self._release()
            except Interrupted as error:
                log.warning("%s; this agent's trials are free once it has ended or their leases have expired", error)
            finally:
                self._held.clear()

    @through_restarts
    def _release(self) -> None:
        with self.ledger() as ledger:
            unsure = {number: lease.attempt for number, lease in self._unsure.items()}
            for number, attempt in {**unsure, **self._held}.items():
                if ledger.held(number, self._owner, attempt):
                    ledger.renew(number, until=0.0)

    def renew_running(self) -> None:
        """Renew the leases of running trials, unless the agent has been silent for KEPT_LEASES leases.

        An agent that waits, for a slow server say, keeps its trials; a stopped or dead process renews nothing.
        """
        if self.clock() - self._heartbeat_at > KEPT_LEASES * self._lease_s:
            return
        with contextlib.suppress(StorageError), self.ledger() as ledger:
            for number in self._running:
                row = self.latest(ledger, number)
                if row is not None and row["state"] == TrialState.RUNNING:
                    ledger.renew(number, self._until())

    def _keep(self) -> None:
        while not self._closing.wait(self._lease_s / 4):
            self.renew_running()

    def _until(self) -> float:
        return self.clock() + self._lease_s


def _is_by(row: Row, lease: Lease) -> bool:
    """Whether a trial was last handed out by this very lease."""
    return (row["owner"], row["attempt"], row["lease_until"]) == (lease.owner, lease.attempt, lease.until)
