"""The embedded search: the agents of a sweep share a database, and need no W&B server and no account.

Each step is one transaction, so a process killed anywhere leaves the sweep as it was before or after that step: a trial
is never half created, handed out twice, or beyond the cap. Our tables are the truth; Optuna's samplers see them through
a study in memory (``search.study``), which makes a step some ten times faster than Optuna's own tables and leaves
optuna unimported where it is not needed: grid, random, status, pause.
"""

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.config.trial import TrialConfig, parse_trial_json
from fer_sweep.errors import InputError
from fer_sweep.records import (
    StopReason,
    SweepState,
    TrialOutcome,
    TrialRecord,
    TrialRequest,
    TrialState,
    Wait,
)
from fer_sweep.search.algorithm import Algorithm
from fer_sweep.search.method import searchable
from fer_sweep.search.objective import reaches_targets
from fer_sweep.search.sampling import Proposal
from fer_sweep.search.turns import TurnProposer
from fer_sweep.search.worth import check_can_converge
from fer_sweep.store.database import Database, check_storage, through_restarts
from fer_sweep.store.engine import Row
from fer_sweep.store.leases import Leases
from fer_sweep.store.sweeps import Beginning, numbered_trials, record_sweep
from fer_sweep.store.trials import Ledger


def create_sweep(sweep: SweepFile, *, sweep_id: str, storage: str, **beginning: Unpack[Beginning]) -> SweepFile:
    """Record a new embedded sweep, in state `running`; creates the database if it does not exist.

    Args:
        sweep: What to search.
        sweep_id: Its name in commands and folders: letters, digits, `_` and `-`.
        storage: `sqlite:///PATH` or `postgresql+psycopg://USER@HOST/DATABASE`.
        beginning: See ``Beginning``.

    Returns:
        The file as it was recorded, with absolute paths.

    Raises:
        InputError: The id is taken or unusable, or the search cannot do what is asked.
        StorageError: The database cannot be written.
    """
    sweep = searchable(
        sweep,
        sweep_id,
        max_gap=beginning.get("max_gap"),
        seed=beginning.get("seed", 0),
        sampler=beginning.get("sampler"),
    )
    if beginning.get("until_converged"):
        check_can_converge(sweep)
    if not record_sweep(sweep, sweep_id, storage, **beginning):
        raise InputError(f"there is already a sweep {sweep_id} in {check_storage(storage)}", hint="choose another id")
    return sweep


def has_new(database: Database, sweep_id: str, sweep: SweepFile | None = None) -> bool:
    """Whether a sweep's space, or that of another file, has a configuration of which the sweep has no trial yet."""
    search = EmbeddedSearch(sweep_id, database, sweep=sweep)
    with contextlib.closing(search):
        return search.has_new()


class EmbeddedSearch:
    """One agent's view of a sweep; safe to share among its threads."""

    def __init__(
        self,
        sweep_id: str,
        database: Database,
        *,
        owner: str | None = None,
        lease_s: float = 60.0,
        clock: Callable[[], float] | None = None,
        can_be_resumed: Callable[[str], bool] = lambda trial_id: True,
        has_checkpoint: Callable[[str], bool] = lambda trial_id: True,
        may_pause: bool = True,
        time_left_s: Callable[[], float] = lambda: math.inf,
        sweep: SweepFile | None = None,
    ) -> None:
        """Open a sweep that ``create_sweep`` made.

        Args:
            sweep_id: Its id.
            database: Where it is; it stays open when the search is closed.
            owner: Names this agent among all agents; this process if not given.
            lease_s: Lease of a trial, seconds; once it expires, another agent may reclaim the trial.
            clock: Unix time, seconds; if not given, the database's for leases, and this process's for the pace.
            can_be_resumed: Whether this host has a trial's checkpoints; other trials come last and restart.
            has_checkpoint: Whether it has one of a paused trial; others stay paused.
            may_pause: Whether this agent's trials may be paused in favour of others; else each trains to its end.
            time_left_s: For this agent's training, seconds.
            sweep: Propose from this file in place of the sweep's own.

        Raises:
            InputError: There is no such sweep, or the user's own study or space failed.
        """
        self._sweep_id = sweep_id
        self._database = database
        self._can_be_resumed = can_be_resumed
        self._has_checkpoint = has_checkpoint
        self._may_pause = may_pause
        self._time_left_s = time_left_s
        self._algorithm_of = functools.partial(Algorithm, sweep_id, clock=clock or time.monotonic, sweep=sweep)
        self._leases = Leases(database, sweep_id, owner=owner, lease_s=lease_s, clock=clock)
        with self._leases.ledger(write=False) as ledger:
            self._algorithm = self._algorithm_of(ledger.settings(), ledger)

    def close(self) -> None:
        """Release the leases that are still held, so that no agent has to wait for them to expire."""
        self._leases.close()

    @through_restarts
    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        """See ``Search.next_trial``; a trial to resume comes before a new one.

        Raises:
            ConfigError: The training function refuses every configuration of the sweep's space.
            InputError: The user's own study or space failed.
        """
        with self._leases.ledger(write=False) as ledger:
            self._follow(ledger)
            self._algorithm.proposer.catch_up(ledger)  # reads most of what is new before other writers have to wait
            if self._algorithm.turns is not None:
                self._algorithm.turns.pace.slot_is_free(slot)
            self._algorithm.look(ledger)
        with self._leases.ledger() as ledger:
            state = self._follow(ledger)
            if state is SweepState.PAUSED:
                return Wait("the sweep is paused")
            if state is not SweepState.RUNNING:
                return None
            turns = self._algorithm.turns
            request = (
                self._reclaim(ledger, slot, self._can_be_resumed)
                or (self._take_turn(ledger, turns, slot) if turns else self._start_new(ledger, slot))
                or self._reclaim(ledger, slot, lambda trial_id: True)
            )
            if request is None and not any(row["state"] != TrialState.PAUSED for row in ledger.unended()):
                self._finish_sweep(ledger)
        return request

    @through_restarts
    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        """See ``Search.report``."""
        number = _number(trial_id)
        if not metrics:  # every slot asks each second, so read first: a writing transaction would block the others
            with self._leases.ledger(write=False) as ledger:
                row, state = self._leases.own(ledger, number, trial_id), ledger.state()
            if self._leases.is_fresh(row):
                return StopReason.PREEMPTED if state is SweepState.CANCELLED else None
        with self._leases.ledger() as ledger:
            self._leases.own(ledger, number, trial_id)
            is_new = self._leases.report(ledger, number, epoch, metrics)
            objectives = self._algorithm.objectives
            if reaches_targets(objectives, [metrics.get(metric.name) for metric in objectives]):
                self._finish_sweep(ledger)
            state = ledger.state()
            if state is SweepState.CANCELLED:
                return StopReason.PREEMPTED
        if not is_new:
            return None
        # Early termination looks at the reports of all trials: in its own transaction, which blocks nobody and sees no
        # report that may yet be rolled back.
        with self._leases.ledger(write=False) as ledger:
            self._algorithm.look(ledger)
            if (turns := self._algorithm.turns) is not None:
                # Running trials of a sweep that hands out nothing finish.
                pauses = state is SweepState.RUNNING and self._should_pause(ledger, turns, number, epoch)
                return StopReason.PAUSED if pauses else None
            return StopReason.PRUNED if self._algorithm.should_prune(ledger, number) else None

    @through_restarts
    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        """See ``Search.finish``; a repetition after a StorageError changes nothing."""
        number = _number(trial_id)
        with self._leases.ledger() as ledger:
            row = self._leases.latest(ledger, number)
            if row is None or row["state"] != outcome.state:
                self._leases.own(ledger, number, trial_id)
                values = self._algorithm.values_of(ledger, number, outcome)
                ledger.end(number, outcome, objectives=values, now=self._leases.clock())
                is_paused = outcome.state is TrialState.PAUSED
                if outcome.state.has_value and reaches_targets(self._algorithm.objectives, values):
                    self._finish_sweep(ledger)
                elif is_paused and ledger.state() is SweepState.FINISHED:  # since this trial was asked to pause
                    self._prune_paused(ledger)
        self._leases.ended(number)

    def records(self) -> Sequence[TrialRecord]:
        """See ``Search.records``."""
        return numbered_trials(self._database, self._sweep_id)

    def has_new(self) -> bool:
        """Whether there is a configuration of which there is no trial yet."""
        with self._leases.ledger(write=False) as ledger:
            return self._algorithm.proposer.propose(ledger.count(), ledger) is not None

    def _follow(self, ledger: Ledger) -> SweepState:
        """Search by the sweep's settings, which may have been changed since they were read last; returns its state."""
        settings = ledger.settings()
        if settings != self._algorithm.settings:
            self._algorithm = self._algorithm_of(settings, ledger)
        return settings.state

    def _reclaim(self, ledger: Ledger, slot: str, may: Callable[[str], bool]) -> TrialRequest | None:
        for row in self._leases.free(ledger):
            if may(str(row["number"])):
                return self._hand_over(ledger, row, slot)
        return None

    def _hand_over(self, ledger: Ledger, row: Row, slot: str) -> TrialRequest:
        number, attempt = row["number"], row["attempt"] + 1
        lease = self._leases.new(slot, attempt)
        ledger.hand_over(number, lease)
        self._leases.hold(number, lease)
        config = parse_trial_json(row["config"])
        until = self._begin_turn(ledger, number, config)
        return TrialRequest(str(number), config, json.loads(row["parameters"]), attempt, until)

    def _take_turn(self, ledger: Ledger, turns: TurnProposer, slot: str) -> TrialRequest | None:
        """Start or resume the trial of the next turn."""
        may_start = not self._algorithm.budget_is_spent(ledger) and not self._algorithm.is_at_cap(ledger)
        if may_start and (picked := ledger.take_queued()):
            return self._begin(ledger, Proposal(picked.parameters, picked.config), slot)
        turn = self._next_turn(ledger, turns)
        if isinstance(turn, Proposal):
            return self._begin(ledger, turn, slot)
        return None if turn is None else self._hand_over(ledger, ledger.numbered([turn])[0], slot)

    def _should_pause(self, ledger: Ledger, turns: TurnProposer, number: int, epoch: int) -> bool:
        """Whether a trial's turn is over and another trial has the next one."""
        row = ledger.numbered([number])[0]
        is_over = turns.pace.is_over(number, epoch)
        if not is_over or not self._may_pause or epoch >= parse_trial_json(row["config"]).epochs:
            return False
        if self._next_turn(ledger, turns, ending=number) == number:
            turns.pace.extend(number, epoch)
            return False
        turns.pace.pause(row["slot"])
        return True

    def _next_turn(self, ledger: Ledger, turns: TurnProposer, *, ending: int | None = None) -> Proposal | int | None:
        """See ``TurnProposer.next_turn``."""
        return turns.next_turn(
            ledger,
            may_resume=lambda number: self._has_checkpoint(str(number)),
            may_start=not self._algorithm.is_at_cap(ledger),
            ending=ending,
            only_best=self._algorithm.is_converged or self._algorithm.budget_is_spent(ledger),
            time_left_s=self._time_left_s(),
        )

    def _begin_turn(self, ledger: Ledger, number: int, config: TrialConfig) -> int | None:
        """A trial begins a turn, if it is trained in turns; returns ``TrialRequest.until``."""
        if self._algorithm.turns is None:
            return None
        until = self._algorithm.turns.pace.begin(number, len(ledger.reports_of(number)))
        return min(until, config.epochs) if self._may_pause else None

    def _finish_sweep(self, ledger: Ledger) -> None:
        ledger.finish_sweep()
        if ledger.state() is SweepState.FINISHED:
            self._prune_paused(ledger)

    def _prune_paused(self, ledger: Ledger) -> None:
        """The sweep ends without its paused trials: what they have reached so far is their result."""
        ledger.prune_paused("paused, and the sweep ended before its next turn", self._leases.clock())

    def _start_new(self, ledger: Ledger, slot: str) -> TrialRequest | None:
        if self._algorithm.is_at_cap(ledger) or self._algorithm.budget_is_spent(ledger):
            return None
        picked = ledger.take_queued()
        if picked is not None:
            return self._begin(ledger, Proposal(picked.parameters, picked.config), slot)
        if self._algorithm.is_converged:
            return None
        proposal = self._algorithm.proposer.propose(ledger.count(), ledger)
        return None if proposal is None else self._begin(ledger, proposal, slot)

    def _begin(self, ledger: Ledger, proposal: Proposal, slot: str) -> TrialRequest:
        number = ledger.count()
        lease = self._leases.new(slot, 1)
        ledger.add(
            number,
            identity=proposal.identity,
            config=proposal.config,
            parameters=proposal.values,
            memo=proposal.memo,
            lease=lease,
            now=self._leases.clock(),
        )
        self._leases.hold(number, lease)
        until = self._begin_turn(ledger, number, proposal.config)
        return TrialRequest(str(number), proposal.config, proposal.values, until=until)


def _number(trial_id: str) -> int:
    return int(trial_id) if trial_id.isdecimal() else -1
