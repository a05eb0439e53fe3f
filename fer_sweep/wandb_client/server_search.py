"""The search on a W&B server: it proposes and stops, and every trial is noted in our own database as well.

The server's word decides what is trained next, what is stopped early and when the sweep is over. Our database holds
what the server cannot: whose a trial is while it runs (``search.leases``), so that the trial of a killed agent is gone
on with from its checkpoint, and every epoch and result, so that a run can be rebuilt whatever became of it. A trial is
called by the id of its W&B run.

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
from fer_sweep.store.config_index import ConfigIndex
from fer_sweep.store.database import Database, Row, through_restarts
from fer_sweep.store.leases import Leases
from fer_sweep.store.trials import Lease, Ledger, SweepState, record_of
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import Command, SweepPath
from fer_sweep.wandb_client.records import has_ended, merged, record_from
from fer_sweep.wandb_client.slots import Pace, SlotAgent
from fer_sweep.wandb_client.unheard import Unheard, nobodys

log = logging.getLogger(__name__)

REFUSED_IN_A_ROW = 20
"""So many configurations that cannot be trained, one after another, end the agent: the sweep's space is at fault."""
_HAS_RESULT = (TrialState.COMPLETE, TrialState.PRUNED)


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
            connect: Gives the server when it is first needed; closed by ``close``.
            owner: Names this agent among those of this database; this process if not given.
            lease_s: A trial not reported on for so many seconds is handed to another agent of this database.
            clock: Unix time, seconds; the database's if not given.
            can_be_resumed: Whether this host sees a trial's checkpoints; others it goes on with last, from their start.
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
        """Slot and number of each trial this agent runs."""
        self._refused = 0
        """Configurations in a row that cannot be trained."""
        self._index = ConfigIndex()
        self._unheard = Unheard(lease_s, self._clock)

    @functools.cached_property
    def _server(self) -> WandbServer:
        return self._connect()

    def close(self) -> None:
        """Give back what is still held, here and on the server, and say nothing more."""
        try:
            agents, self._agents = self._agents, {}
            for offer in [offer for agent in agents.values() for offer in agent.close()]:
                self._hand_back(offer.run_id, "was offered and not begun")
        finally:
            self._leases.close()
            if "_server" in self.__dict__:
                self._server.close()

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        """See ``Search.next_trial``; the trial of a killed agent of this database comes first.

        Raises:
            FersweepError: The server refuses this agent or does not answer, and nothing is running.
            ConfigError: The training function refuses whatever the server proposes.
            StorageError: The database cannot be written.
        """
        agent = self._agents.get(slot)
        if agent is None:
            agent = self._agents[slot] = SlotAgent(self._server, self._path, socket.gethostname(), self._pace)
        request: TrialRequest | Wait | None = self._go_on_first(slot)
        while request is None:
            try:
                answer = agent.ask()
            except FersweepError:
                if self._running:
                    return None  # those that run shall finish; the error comes again when they have
                raise
            if answer is False:
                request = (self._begin_forgotten(slot) if agent.is_without_trial else None) or agent.wait
            elif answer is True:
                # Whoever was to go on with a preempted trial, the server has not asked again and will not.
                if agent.last_state is not SweepState.CANCELLED:
                    request = self._take_over(slot, TrialState.PREEMPTED) or self._begin_forgotten(slot)
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
            LostTrial: The trial is another agent's by now.
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
        """See ``Search.finish``; saying the same again, after a StorageError, changes nothing.

        Raises:
            LostTrial: The trial is another agent's by now.
            StorageError: The database cannot be written.
        """
        with self._leases.ledger() as ledger:
            number, row = self._latest(ledger, trial_id)
            if row is None or row["state"] != outcome.state:
                self._leases.own(ledger, number, trial_id)
                ledger.end(
                    number,
                    outcome.state,
                    objectives=[],
                    result=json.dumps(outcome.result.model_dump(mode="json")) if outcome.result else None,
                    reason=outcome.reason,
                    now=self._clock(),
                )
        self._let_go(trial_id, number)

    def _latest(self, ledger: Ledger, trial_id: str) -> tuple[int, Row | None]:
        known = ledger.find(trial_id)
        number = known["number"] if known else -1
        return number, self._leases.latest(ledger, number)

    @through_restarts
    def records(self) -> Sequence[TrialRecord]:
        """See ``Search.records``: those of this database, and from the server those of other hosts."""
        with self._leases.ledger(write=False) as ledger:
            here = [record_of(row, row["identity"]) for row in ledger.all()]
        try:
            there = list(self._server.runs(self._path))
        except (ServerError, LoginError) as error:
            log.warning("%s; showing the trials of this host only", error)
            return here
        return merged(here, there)

    def _is_fresh(self, number: int, trial_id: str) -> bool:
        # Asked every second of every slot: a question that writes would make all others wait.
        with self._leases.ledger(write=False) as ledger:
            return self._leases.is_fresh(self._leases.own(ledger, number, trial_id))

    @through_restarts
    def _go_on_first(self, slot: str) -> TrialRequest | Wait | None:
        """What comes before a new run: a killed agent's trial, or one whose preemption the server never heard of."""
        with self._leases.ledger(write=False) as ledger:
            free = {row["state"] for row in self._leases.free(ledger)}
        request = self._after_a_dead_agent(slot) if TrialState.RUNNING in free else None
        if request is None and TrialState.PREEMPTED in free:
            request = self._begin_unheard(slot)
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
        """Go on with a trial that nobody has in hand, unless it has been gone on with elsewhere."""
        while True:
            with self._leases.ledger() as ledger:
                free = [row for row in self._leases.free(ledger) if row["state"] == state]
                row = next((row for row in free if self._can_be_resumed(row["identity"])), free[0] if free else None)
                if row is None:
                    return None
                request = self._go_on(ledger, row, slot)
            try:
                run = self._server.run(self._path, request.trial_id)
            except ServerBusy as error:
                log.warning("%s; going on with trial %s all the same", error, request.trial_id)
                return request
            if run is None or not has_ended(run):
                return request
            record = record_from(run)
            reason = "it ended on another host" + (f": {record.reason}" if record.reason else "")
            self.finish(request.trial_id, TrialOutcome(record.state, record.result, reason))

    def _go_on(self, ledger: Ledger, row: Any, slot: str) -> TrialRequest:
        attempt = row["attempt"] + 1
        lease = self._leases.new(slot, attempt)
        ledger.hand_over(row["number"], lease)
        self._hold(slot, row["identity"], row["number"], lease)
        config, parameters = parse_trial_json(row["config"]), json.loads(row["parameters"])
        return TrialRequest(row["identity"], config, parameters, attempt)

    @through_restarts
    def _begin(self, slot: str, command: Command) -> TrialRequest | None:
        """Take up a run that the server offers; None if it cannot be, which the server then knows."""
        run_id = command.run_id
        parameters = flatten(command.args or {})
        with self._leases.ledger() as ledger:
            row = ledger.find(run_id)
            if row is not None and not self._leases.is_in_hand(row):
                return self._go_on(ledger, row, slot)
        if row is not None:
            log.warning("W&B offers run %s again, which is still running on this host; it stays there", run_id)
            return None
        try:
            config = parse_trial(parameters)
        except ConfigError as error:
            self._refuse(run_id, error)
            return None
        self._refused = 0
        with self._leases.ledger() as ledger:
            if ledger.find(run_id):
                return None  # by another agent, in this very moment
            number, lease = ledger.count(), self._leases.new(slot, 1)
            twins = [row for row in self._index.find(config, ledger) if row["state"] in _HAS_RESULT]
            ledger.add(
                number,
                identity=run_id,
                config=config.model_dump_json(),
                parameters=parameters,
                memo=None,
                lease=lease,
                now=self._clock(),
            )
            self._hold(slot, run_id, number, lease)
        if twins:
            copy_trial(trial_folder(self._path.id, twins[0]["identity"]), trial_folder(self._path.id, run_id))
        return TrialRequest(run_id, config, parameters)

    def _begin_forgotten(self, slot: str) -> TrialRequest | Wait | None:
        """Begin a run that the server takes to be in hand and nobody has; Wait if one may be such a run.

        Its offer was lost on its way, or died with its agent; or its trial was preempted here, and the server has not
        heard of it. The server would not offer it again, and never call the sweep finished. Whoever has it may only be
        about to begin, hence the wait: a lease's time in which the server has heard nothing of it.
        """
        if request := self._begin_unheard(slot):
            return request
        names = ", ".join(self._unheard.ids)
        return Wait(f"nothing is heard of run {names}, which is to be trained yet") if names else None

    @through_restarts
    def _begin_unheard(self, slot: str) -> TrialRequest | None:
        if self._unheard.is_due():
            for run in self._unheard.look(nobodys(self._server, self._path, self._leases)):
                log.warning("nothing is heard of run %s, which W&B takes to be in hand; it is trained here", run.id)
                if request := self._begin(slot, Command("run", run.id, run.config)):
                    return request
        return None

    def _hand_back(self, run_id: str, why: str) -> bool:
        try:
            self._server.hand_back(self._path, run_id)
        except FersweepError as error:
            log.warning("run %s %s, and could not be given back: %s", run_id, why, error)
            return False
        return True

    def _refuse(self, run_id: str, error: ConfigError) -> None:
        log.warning("run %s cannot be trained and is marked as failed: %s", run_id, error)
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
