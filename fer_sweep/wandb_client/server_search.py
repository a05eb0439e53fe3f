"""The search on a W&B server: it proposes trials and stops them early, and our own database records each one.

The server decides what is trained next, what is stopped early and when the sweep is finished. Our database has what the
server has not: the lease of a running trial (``store.leases``), so that another agent resumes the trial of a killed one
from its checkpoint; and every epoch and result, so that a run can be rebuilt. A trial's id is the id of its W&B run.

Metrics reach the server through the trial's run (``tracking``), not from here.
"""

import functools
import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence

from fer_sweep.config.trial import flatten, parse_trial, parse_trial_json
from fer_sweep.data.store import image_size
from fer_sweep.errors import ConfigError, FersweepError, LoginError, LostTrial, ServerBusy, ServerError
from fer_sweep.files import copy_trial, trial_folder
from fer_sweep.records import StopReason, SweepState, TrialOutcome, TrialRecord, TrialRequest, TrialState, Wait
from fer_sweep.store.caches import ConfigIndex
from fer_sweep.store.database import Database, through_restarts
from fer_sweep.store.engine import Row
from fer_sweep.store.leases import Leases
from fer_sweep.store.sweeps import record_of
from fer_sweep.store.trials import Lease, Ledger
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import Command, SweepPath
from fer_sweep.wandb_client.reconcile import OPEN, has_ended, merged, record_from
from fer_sweep.wandb_client.slots import RUN_ID, Pace, SlotAgent

log = logging.getLogger(__name__)

REFUSED_IN_A_ROW = 20
"""So many proposals in a row that cannot be trained end the agent: the sweep's space is at fault."""


class WandbSearch:
    """One agent's view of a sweep on a W&B server; to the server, each of its slots is an agent."""

    def __init__(
        self,
        path: SweepPath,
        database: Database,
        *,
        connect: Callable[[], WandbServer],
        owner: str | None = None,
        lease_s: float = 60.0,
        clock: Callable[[], float] | None = None,
        can_be_resumed: Callable[[str], bool] = lambda trial_id: True,
        pace: Pace | None = None,
    ) -> None:
        """Open a sweep that the database knows.

        Args:
            path: Where it is on the server.
            database: For leases and reports; it stays open when the search is closed.
            connect: Gives the server when it is first needed; it stays connected when the search is closed.
            owner, lease_s, clock: See ``Leases``.
            can_be_resumed: Whether this host has a trial's checkpoints; other trials come last and restart.
            pace: How often the server is asked.
        """
        self._path = path
        self._connect = connect
        self._can_be_resumed = can_be_resumed
        self._pace = pace or Pace()
        self._leases = Leases(database, path.id, owner=owner, lease_s=lease_s, clock=clock)
        self._clock = self._leases.clock
        self._agents: dict[str, SlotAgent] = {}
        """By slot."""
        self._running: dict[str, tuple[str, int]] = {}
        """Slot and number of each trial that this agent runs."""
        self._refused = 0
        """Proposals in a row that cannot be trained."""
        self._index = ConfigIndex()
        self._lease_s = lease_s
        self._looked_at = float("-inf")
        """When the server was last asked for open runs."""
        self._seen: dict[tuple[str, float | None, int], float] = {}
        """When a run was first seen with this heartbeat and number of lines, by our clock: the server's may differ."""
        self._unowned: list[str] = []
        """Open runs that no agent of this database trains, as of the last look."""

    @functools.cached_property
    def _server(self) -> WandbServer:
        return self._connect()

    def close(self) -> None:
        """Requeue the runs that were proposed and not started, release the leases."""
        try:
            agents, self._agents = self._agents, {}
            for offer in [offer for agent in agents.values() for offer in agent.close()]:
                try:
                    self._server.requeue(self._path, offer.run_id)
                except FersweepError as error:
                    log.warning("run %s was not started and could not be requeued: %s", offer.run_id, error)
        finally:
            self._leases.close()

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        """See ``Search.next_trial``; trials of killed agents of this database come first.

        Raises:
            FersweepError: The server refuses this agent or does not answer, and no trial is running.
            ConfigError: The server proposes only configurations that cannot be trained.
        """
        agent = self._agents.get(slot)
        if agent is None:
            agent = self._agents[slot] = SlotAgent(self._server, self._path, socket.gethostname(), self._pace)
        request: TrialRequest | Wait | None = self._resume_first(slot)
        while request is None:
            try:
                answer = agent.ask()
            except FersweepError:
                if self._running:
                    return None  # running trials finish first; the error is raised again then
                raise
            if isinstance(answer, Command):
                request = self._begin(slot, answer)
            elif answer is not None:
                request = (self._begin_unowned(slot) if agent.has_no_trial else None) or answer
            elif agent.state is SweepState.CANCELLED:
                return None
            else:  # the server will not hand out these preempted trials again
                request = self._reclaim(slot, TrialState.PREEMPTED) or self._begin_unowned(slot)
                break
        if isinstance(request, TrialRequest):
            agent.begins(request.trial_id, agents=len(self._agents))
        return request

    @through_restarts
    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        """See ``Search.report``."""
        slot, number = self._running.get(trial_id, ("", -1))
        try:
            if metrics or not self._is_fresh(number, trial_id):
                with self._leases.ledger() as ledger:
                    self._leases.own(ledger, number, trial_id)
                    self._leases.report(ledger, number, epoch, metrics)
        except LostTrial:
            self._let_go(trial_id, number)
            raise
        return self._agents[slot].stop_reason()

    @through_restarts
    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        """See ``Search.finish``; a repetition after a StorageError changes nothing."""
        with self._leases.ledger() as ledger:
            known = ledger.find(trial_id)
            number = known["number"] if known else -1
            row = self._leases.latest(ledger, number)
            if row is None or row["state"] != outcome.state:
                self._leases.own(ledger, number, trial_id)
                ledger.end(number, outcome, now=self._clock())
        self._let_go(trial_id, number)

    @through_restarts
    def records(self) -> Sequence[TrialRecord]:
        """See ``Search.records``: the trials of this database, and from the server those of other hosts."""
        with self._leases.ledger(write=False) as ledger:
            here = [record_of(row, row["identity"]) for row in ledger.all()]
        try:
            return merged(here, self._server.runs(self._path))
        except (ServerError, LoginError) as error:
            log.warning("%s; showing the trials of this host only", error)
            return here

    def _is_fresh(self, number: int, trial_id: str) -> bool:
        # Every slot asks each second, so read first: a writing transaction would block the others.
        with self._leases.ledger(write=False) as ledger:
            return self._leases.is_fresh(self._leases.own(ledger, number, trial_id))

    @through_restarts
    def _resume_first(self, slot: str) -> TrialRequest | Wait | None:
        """What comes before a new run: a killed agent's trial, or one whose preemption was not uploaded."""
        with self._leases.ledger(write=False) as ledger:
            free = {row["state"] for row in self._leases.free(ledger)}
        request = None
        if TrialState.RUNNING in free:
            try:
                state = self._server.sweep(self._path).state
            except ServerBusy as error:
                return Wait(str(error))
            if state is SweepState.PAUSED:
                return Wait("the sweep is paused")
            if state is SweepState.RUNNING:
                request = self._reclaim(slot, TrialState.RUNNING)
        if request is None and TrialState.PREEMPTED in free:
            request = self._begin_silent(slot)
        return request

    @through_restarts
    def _reclaim(self, slot: str, state: TrialState) -> TrialRequest | None:
        """Resume an unleased trial, unless it has ended on another host."""
        while True:
            with self._leases.ledger() as ledger:
                free = [row for row in self._leases.free(ledger) if row["state"] == state]
                if not free:
                    return None
                first = min(free, key=lambda row: not self._can_be_resumed(row["identity"]))
                request = self._resume(ledger, first, slot)
            try:
                runs = self._server.runs(self._path, ids=[request.trial_id])
            except ServerBusy as error:
                log.warning("%s; trial %s is resumed without the server's record of it", error, request.trial_id)
                return request
            if not runs or not has_ended(runs[0]):
                return request
            record = record_from(runs[0])
            reason = "it ended on another host" + (f": {record.reason}" if record.reason else "")
            self.finish(request.trial_id, TrialOutcome(record.state, record.result, reason))

    def _resume(self, ledger: Ledger, row: Row, slot: str) -> TrialRequest:
        config, parameters = parse_trial_json(row["config"]), json.loads(row["parameters"])
        lease = self._leases.new(slot, row["attempt"] + 1)
        ledger.hand_over(row["number"], lease)
        self._hold(slot, row["identity"], row["number"], lease)
        return TrialRequest(row["identity"], config, parameters, lease.attempt)

    @through_restarts
    def _begin(self, slot: str, command: Command) -> TrialRequest | None:
        """Start a run that the server proposes; None if it cannot be trained or another agent has it."""
        run_id, parameters = command.run_id, flatten(command.args or {})
        try:
            with self._leases.ledger() as ledger:
                if row := ledger.find(run_id):
                    if not self._leases.is_leased(row):
                        return self._resume(ledger, row, slot)
                    log.warning("W&B proposes run %s, which is running on another agent already", run_id)
                    return None
                config = parse_trial(parameters)
                config.check_image_size(*image_size(config.data))
                number, lease = ledger.count(), self._leases.new(slot, 1)
                twins = [row for row in self._index.find(config, ledger) if TrialState(row["state"]).has_value]
                ledger.add(
                    number,
                    identity=run_id,
                    config=config,
                    parameters=parameters,
                    memo=None,
                    lease=lease,
                    now=self._clock(),
                )
                self._hold(slot, run_id, number, lease)
        except ConfigError as error:
            self._refuse(run_id, error)
            return None
        self._refused = 0
        if twins:
            copy_trial(trial_folder(self._path.id, twins[0]["identity"]), trial_folder(self._path.id, run_id))
        return TrialRequest(run_id, config, parameters)

    def _refuse(self, run_id: str, error: ConfigError) -> None:
        log.warning("run %s cannot be trained and is reported as failed: %s", run_id, error)
        try:
            self._server.fail_run(self._path, run_id, str(error))
        except FersweepError as trouble:
            log.warning("%s", trouble)
        self._refused += 1
        if self._refused >= REFUSED_IN_A_ROW:
            raise error

    def _begin_unowned(self, slot: str) -> TrialRequest | Wait | None:
        """Begin an open run that no agent trains; Wait if one may be such a run.

        Its proposal was lost on its way, or with its agent; or its trial was preempted here, and the server was not
        told. The server would not propose it again, and never finish the sweep.
        """
        request = self._begin_silent(slot)
        if request is None and self._unowned:
            return Wait(f"run {', '.join(self._unowned)} is to be trained and shows no sign of life yet")
        return request

    @through_restarts
    def _begin_silent(self, slot: str) -> TrialRequest | None:
        """The same once such a run has shown no sign of life for a lease: an agent may be about to begin it."""
        now = self._clock()
        if now - self._looked_at < self._lease_s / 4:
            return None
        try:
            runs = [run for run in self._server.runs(self._path, states=OPEN, tries=1) if RUN_ID.fullmatch(run.id)]
        except FersweepError as error:
            log.debug("%s", error)
            return None
        self._looked_at = now
        signs = {run.id: (run.id, run.heartbeat_at, run.steps) for run in runs}
        self._seen = {sign: self._seen.get(sign, now) for sign in signs.values()}
        with self._leases.ledger(write=False) as ledger:
            states = {run.id: row["state"] for run in runs if (row := ledger.find(run.id))}
        # An unknown run that is not pending is trained on another host.
        unowned = [run for run in runs if states.get(run.id, run.state) in (TrialState.PREEMPTED, "pending")]
        self._unowned = [run.id for run in unowned]
        for run in unowned:
            if now - self._seen[signs[run.id]] >= self._lease_s:
                log.warning("run %s is open on the W&B server without a sign of life; it is trained here", run.id)
                if request := self._begin(slot, Command("run", run.id, run.config)):
                    return request
        return None

    def _let_go(self, trial_id: str, number: int) -> None:
        self._leases.ended(number)
        if held := self._running.pop(trial_id, None):
            self._agents[held[0]].ends()

    def _hold(self, slot: str, trial_id: str, number: int, lease: Lease) -> None:
        self._leases.hold(number, lease)
        self._running[trial_id] = (slot, number)
