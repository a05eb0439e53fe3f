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
from typing import Any

from fer_sweep.config.trial import flatten, parse_trial, parse_trial_json
from fer_sweep.errors import ConfigError, FersweepError, LoginError, LostTrial, ServerBusy, ServerError
from fer_sweep.files import copy_trial, trial_folder
from fer_sweep.records import (
    StopReason,
    TrialOutcome,
    TrialRecord,
    TrialRequest,
    TrialState,
    Wait,
)
from fer_sweep.store.database import Database, through_restarts
from fer_sweep.store.engine import Row
from fer_sweep.store.leases import Leases
from fer_sweep.store.trials import ConfigIndex, Lease, Ledger, SweepState, record_of
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import Command, SweepPath
from fer_sweep.wandb_client.reconcile import Action, LocalTrial, SignsOfLife, reconcile
from fer_sweep.wandb_client.runs import OPEN, has_ended, merged, record_from
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
            connect: Connects to the server when it is first needed; ``close`` closes it.
            owner: Names this agent among those of this database; this process if not given.
            lease_s: Lease of a trial, seconds; once it expires, another agent of this database may resume the trial.
            clock: Unix time, seconds; the database's if not given.
            can_be_resumed: Whether this host has a trial's checkpoints; other trials come last and restart.
            pace: How often the server is asked.

        Raises:
            StorageError: The database cannot be used.
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
        self._signs = SignsOfLife(lease_s, self._clock)
        self._unowned: list[str] = []
        """Open runs that no agent of this database trains, as of the last look."""

    @functools.cached_property
    def _server(self) -> WandbServer:
        return self._connect()

    def close(self) -> None:
        """Requeue the runs that were proposed and not started, release the leases and close the connection."""
        try:
            agents, self._agents = self._agents, {}
            for offer in [offer for agent in agents.values() for offer in agent.close()]:
                self._hand_back(offer.run_id)
        finally:
            self._leases.close()
            if "_server" in self.__dict__:
                self._server.close()

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        """See ``Search.next_trial``; trials of killed agents of this database come first.

        Raises:
            FersweepError: The server refuses this agent or does not answer, and no trial is running.
            ConfigError: The server proposes only configurations that cannot be trained.
            StorageError: The database cannot be written.
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
            if answer is False:
                request = (self._begin_unowned(slot) if agent.is_without_trial else None) or agent.wait
            elif answer is True:
                # The server will not hand out these preempted trials again.
                if agent.last_state is not SweepState.CANCELLED:
                    request = self._take_over(slot, TrialState.PREEMPTED) or self._begin_unowned(slot)
                break
            else:
                assert isinstance(answer, Command)
                request = self._begin(slot, answer)
        if isinstance(request, TrialRequest):
            agent.begins(request.trial_id, len(self._agents))
        return request

    @through_restarts
    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        """See ``Search.report``.

        Raises:
            LostTrial: Another agent has the trial's lease by now.
            StorageError: The database cannot be written.
        """
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
        """See ``Search.finish``; a repetition after a StorageError changes nothing.

        Raises:
            LostTrial: Another agent has the trial's lease by now.
            StorageError: The database cannot be written.
        """
        with self._leases.ledger() as ledger:
            number, row = self._latest(ledger, trial_id)
            if row is None or row["state"] != outcome.state:
                self._leases.own(ledger, number, trial_id)
                ledger.end(number, outcome, now=self._clock())
        self._let_go(trial_id, number)

    def _latest(self, ledger: Ledger, trial_id: str) -> tuple[int, Row | None]:
        known = ledger.find(trial_id)
        number = known["number"] if known else -1
        return number, self._leases.latest(ledger, number)

    @through_restarts
    def records(self) -> Sequence[TrialRecord]:
        """See ``Search.records``: the trials of this database, and from the server those of other hosts."""
        with self._leases.ledger(write=False) as ledger:
            here = [record_of(row, row["identity"]) for row in ledger.all()]
        try:
            there = list(self._server.runs(self._path))
        except (ServerError, LoginError) as error:
            log.warning("%s; showing the trials of this host only", error)
            return here
        return merged(here, there)

    def _is_fresh(self, number: int, trial_id: str) -> bool:
        # Every slot asks each second, so read first: a writing transaction would block the others.
        with self._leases.ledger(write=False) as ledger:
            return self._leases.is_fresh(self._leases.own(ledger, number, trial_id))

    @through_restarts
    def _resume_first(self, slot: str) -> TrialRequest | Wait | None:
        """What comes before a new run: a killed agent's trial, or one whose preemption was not uploaded."""
        with self._leases.ledger(write=False) as ledger:
            free = {row["state"] for row in self._leases.free(ledger)}
        request = self._after_a_dead_agent(slot) if TrialState.RUNNING in free else None
        if request is None and TrialState.PREEMPTED in free:
            request = self._begin_silent(slot)
        return request

    def _after_a_dead_agent(self, slot: str) -> TrialRequest | Wait | None:
        try:
            state = self._server.sweep(self._path).state
        except ServerBusy as error:
            return Wait(str(error))
        if state is SweepState.PAUSED:
            return Wait("the sweep is paused")
        return self._take_over(slot, TrialState.RUNNING) if state is SweepState.RUNNING else None

    @through_restarts
    def _take_over(self, slot: str, state: TrialState) -> TrialRequest | None:
        """Resume an unleased trial, unless it has ended on another host."""
        while True:
            with self._leases.ledger() as ledger:
                free = [row for row in self._leases.free(ledger) if row["state"] == state]
                row = next((row for row in free if self._can_be_resumed(row["identity"])), free[0] if free else None)
                if row is None:
                    return None
                request = self._resume(ledger, row, slot)
            try:
                run = self._server.run(self._path, request.trial_id)
            except ServerBusy as error:
                log.warning("%s; trial %s is resumed without the server's record of it", error, request.trial_id)
                return request
            if run is None or not has_ended(run):
                return request
            record = record_from(run)
            reason = "it ended on another host" + (f": {record.reason}" if record.reason else "")
            self.finish(request.trial_id, TrialOutcome(record.state, record.result, reason))

    def _resume(self, ledger: Ledger, row: Any, slot: str) -> TrialRequest:
        attempt = row["attempt"] + 1
        lease = self._leases.new(slot, attempt)
        ledger.hand_over(row["number"], lease)
        self._hold(slot, row["identity"], row["number"], lease)
        config, parameters = parse_trial_json(row["config"]), json.loads(row["parameters"])
        return TrialRequest(row["identity"], config, parameters, attempt)

    @through_restarts
    def _begin(self, slot: str, command: Command) -> TrialRequest | None:
        """Start a run that the server proposes; None if it cannot be trained or another agent has it."""
        run_id = command.run_id
        parameters = flatten(command.args or {})
        with self._leases.ledger() as ledger:
            row = ledger.find(run_id)
            if row is not None and not self._leases.is_leased(row):
                return self._resume(ledger, row, slot)
        if row is not None:
            log.warning("W&B proposes run %s, which is running on another agent already", run_id)
            return None
        try:
            config = parse_trial(parameters)
        except ConfigError as error:
            self._refuse(run_id, error)
            return None
        self._refused = 0
        with self._leases.ledger() as ledger:
            if ledger.find(run_id):
                return None  # another agent was faster
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
        if twins:
            copy_trial(trial_folder(self._path.id, twins[0]["identity"]), trial_folder(self._path.id, run_id))
        return TrialRequest(run_id, config, parameters)

    def _begin_unowned(self, slot: str) -> TrialRequest | Wait | None:
        """Begin an open run that no agent trains; Wait if one may be such a run.

        Its proposal was lost on its way, or with its agent; or its trial was preempted here, and the server was not
        told. The server would not propose it again, and never finish the sweep. An agent may be about to begin it, so
        wait for a lease without a sign of life.
        """
        if request := self._begin_silent(slot):
            return request
        names = ", ".join(self._unowned)
        return Wait(f"run {names} is to be trained and shows no sign of life yet") if names else None

    @through_restarts
    def _begin_silent(self, slot: str) -> TrialRequest | None:
        if not self._signs.is_due():
            return None
        try:
            runs = [run for run in self._server.runs(self._path, states=OPEN, tries=1) if RUN_ID.fullmatch(run.id)]
        except FersweepError as error:
            log.debug("%s", error)
            return None
        with self._leases.ledger(write=False) as ledger:
            states = {run.id: TrialState(row["state"]) for run in runs if (row := ledger.find(run.id)) is not None}
        in_use = {run_id for run_id, state in states.items() if state is not TrialState.PREEMPTED}
        local = [
            LocalTrial(run_id, run_id, state, in_use=run_id in in_use, server_resumes=True)
            for run_id, state in states.items()
        ]
        actions = reconcile(local, runs, silent=self._signs.silent(runs))
        self._unowned = [run_id for run_id in actions if run_id not in in_use]
        for run in runs:
            if actions.get(run.id) is not Action.TRAIN:
                continue
            log.warning("run %s is open on the W&B server without a sign of life; it is trained here", run.id)
            if request := self._begin(slot, Command("run", run.id, run.config)):
                return request
        return None

    def _hand_back(self, run_id: str) -> None:
        try:
            self._server.hand_back(self._path, run_id)
        except FersweepError as error:
            log.warning("run %s was proposed and not started, and could not be requeued: %s", run_id, error)

    def _refuse(self, run_id: str, error: ConfigError) -> None:
        log.warning("run %s cannot be trained and is reported as failed: %s", run_id, error)
        try:
            self._server.fail_run(self._path, run_id, str(error))
        except FersweepError as trouble:
            log.warning("%s", trouble)
        self._refused += 1
        if self._refused >= REFUSED_IN_A_ROW:
            raise error

    def _let_go(self, trial_id: str, number: int) -> None:
        self._leases.ended(number)
        if held := self._running.pop(trial_id, None):
            self._agents[held[0]].ends()

    def _hold(self, slot: str, trial_id: str, number: int, lease: Lease) -> None:
        self._leases.hold(number, lease)
        self._running[trial_id] = (slot, number)
