"""The embedded search: every agent of a sweep on one SQLite file, no server and no account.

Each step is one transaction, so a process killed anywhere leaves the sweep as it was before or after that step:
a trial is never half made, handed out twice, or beyond the cap. Our tables are the truth; Optuna's samplers see them
through a study in memory (``search.study``), which makes a step some ten times faster than Optuna's own tables and
leaves optuna unimported where it is not needed: grid, random, status, pause.

A trial belongs to whoever holds its lease: an owner, an attempt and a time. The lease is renewed by every report;
when it has run out, or its owner was a process of this host that is no longer there, ``next_trial`` hands the trial
out again as the next attempt, and the late report of the former owner is refused.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import EarlyTerminate, SweepFile, parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import LostTrial, StorageError
from fer_sweep.records import StopReason, TrialOutcome, TrialRecord, TrialRequest, TrialResult, TrialState, Wait
from fer_sweep.search import owners
from fer_sweep.search.database import Database
from fer_sweep.search.hyperband import should_stop
from fer_sweep.search.ledger import Histories, Lease, Ledger
from fer_sweep.search.objective import imputed_value, objective_value, reaches_targets, result_metrics
from fer_sweep.search.sampling import GridProposer, Proposer, RandomProposer
from fer_sweep.search.storage import SweepState, no_such_sweep

if TYPE_CHECKING:
    from fer_sweep.search.study import StudyProposer


SEVERAL_OBJECTIVES_RULE = EarlyTerminate(type="hyperband", min_iter=3)
"""Where there is no other: stops trials that are far behind in the first objective. W&B's schema allows no
early_terminate beside a scheduler, and Optuna itself prunes nothing with several objectives."""


class OptunaSearch:
    """One agent's view of a sweep; safe to share among its threads."""

    def __init__(
        self,
        sweep_id: str,
        *,
        storage: str,
        owner: str | None = None,
        lease_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a sweep that ``create_sweep`` made.

        Args:
            sweep_id: Its id.
            storage: `sqlite:///PATH`.
            owner: Names this agent among all agents; this process if not given.
            lease_s: A trial not reported on for so many seconds is handed to another agent.
            clock: Unix time, seconds.

        Raises:
            InputError: There is no such sweep.
            StorageError: The database cannot be used.
        """
        self._sweep_id = sweep_id
        self._owner = owner or owners.this_process()
        self._lease_s = lease_s
        self._clock = clock
        self._lock = threading.RLock()
        self._held: dict[str, int] = {}
        """Trials handed to this agent, with the attempt it is on."""
        self._running: set[str] = set()
        """Those of them that have not ended yet."""
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None
        self._database = Database(storage)
        try:
            with self._database.transaction(write=False) as connection:
                row = connection.row("SELECT * FROM fersweep_sweeps WHERE id = ?", [sweep_id])
                if row is None:
                    raise no_such_sweep(connection, sweep_id, self._database.path)
            self._sweep = parse_sweep(json.loads(row["spec"]), source=f"sweep {sweep_id}")
            objectives = self._sweep.objectives
            self._histories = Histories(objectives[0].name if objectives else None)
            self._study = _study_proposer(self._sweep, row, self._histories)
            self._proposer = self._study or _plain_proposer(self._sweep, row["seed"])
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Give up what is still held, so that others need not wait for its lease to end, and let the file go."""
        self._closing.set()
        with self._lock:
            try:
                if self._held:
                    with self._ledger() as ledger:
                        for trial_id, attempt in self._held.items():
                            if row := ledger.held(trial_id, self._owner, attempt):
                                ledger.renew(row["number"], until=0.0)
            finally:
                self._held.clear()
                self._database.close()

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        """See ``Search.next_trial``; a trial to go on with comes before a new one.

        Raises:
            ConfigError: The training function refuses whatever the sweep's space gives.
            InputError: The user's own study or space failed.
            StorageError: The database cannot be written.
        """
        with self._ledger() as ledger:
            state = ledger.state()
            if state is SweepState.PAUSED:
                return Wait("the sweep is paused")
            if state is not SweepState.RUNNING:
                return None
            request = self._take_over(ledger, slot) or self._start_new(ledger, slot)
            if request is None and not ledger.unended():
                ledger.finish_sweep()
            if request is not None:
                self._held[request.trial_id] = request.attempt
                self._running.add(request.trial_id)
        if request is not None and self._keeper is None:
            self._keeper = threading.Thread(target=self._keep_leases, daemon=True, name="lease-keeper")
            self._keeper.start()
        return request

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        """See ``Search.report``.

        Raises:
            LostTrial: The trial is another agent's by now.
            StorageError: The database cannot be written.
        """
        with self._ledger() as ledger:
            number = self._row(ledger, trial_id)["number"]
            ledger.renew(number, self._clock() + self._lease_s)
            is_news = bool(metrics) and not ledger.record_epoch(number, epoch, metrics)
            objectives = self._sweep.objectives
            if reaches_targets(objectives, [metrics.get(metric.name) for metric in objectives]):
                ledger.finish_sweep()
            if ledger.state() is SweepState.CANCELLED:
                return StopReason.PREEMPTED
            return StopReason.PRUNED if is_news and self._should_prune(ledger, number) else None

    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        """See ``Search.finish``; saying the same again, after a StorageError, changes nothing.

        Raises:
            LostTrial: The trial is another agent's by now.
            StorageError: The database cannot be written.
        """
        with self._ledger() as ledger:
            row = ledger.held(trial_id, self._owner, self._held.get(trial_id, 0))
            if row is None or row["state"] != outcome.state:
                number = self._row(ledger, trial_id)["number"]
                values = self._worth(ledger, number, outcome)
                ledger.end(
                    number,
                    outcome.state,
                    objectives=values,
                    result=json.dumps(outcome.result.model_dump(mode="json")) if outcome.result else None,
                    reason=outcome.reason,
                    now=self._clock(),
                )
                has_value = outcome.state in (TrialState.COMPLETE, TrialState.PRUNED)
                if has_value and reaches_targets(self._sweep.objectives, values):
                    ledger.finish_sweep()
            self._running.discard(trial_id)

    def records(self) -> Sequence[TrialRecord]:
        """See ``Search.records``."""
        with self._ledger(write=False) as ledger:
            rows = ledger.all()
        return [_record(row) for row in rows]

    @contextlib.contextmanager
    def _ledger(self, *, write: bool = True) -> Iterator[Ledger]:
        with self._lock, self._database.transaction(write=write) as connection:
            yield Ledger(connection, self._sweep_id)

    def _keep_leases(self) -> None:
        # Whatever holds its agent up, a trial that runs stays its own; a stopped or dead process renews nothing.
        while not self._closing.wait(self._lease_s / 4):
            with contextlib.suppress(StorageError), self._ledger() as ledger:
                for trial_id in self._running:
                    row = ledger.held(trial_id, self._owner, self._held[trial_id])
                    if row is not None and row["state"] == TrialState.RUNNING:
                        ledger.renew(row["number"], self._clock() + self._lease_s)

    def _take_over(self, ledger: Ledger, slot: str) -> TrialRequest | None:
        now = self._clock()
        for row in ledger.unended():
            if row["state"] == TrialState.RUNNING and self._is_in_hand(row, now):
                continue
            attempt = row["attempt"] + 1
            ledger.hand_over(row["number"], Lease(self._owner, slot, attempt, now + self._lease_s))
            return TrialRequest(
                str(row["number"]), parse_trial(json.loads(row["config"])), json.loads(row["parameters"]), attempt
            )
        return None

    def _is_in_hand(self, row: sqlite3.Row, now: float) -> bool:
        trial_id = str(row["number"])
        if row["owner"] == self._owner and trial_id in self._running and self._held[trial_id] == row["attempt"]:
            return True  # by ourselves, however late we are
        return row["lease_until"] > now and not owners.is_dead(row["owner"])

    def _start_new(self, ledger: Ledger, slot: str) -> TrialRequest | None:
        number = ledger.count()
        if self._sweep.run_cap is not None and number >= self._sweep.run_cap:
            return None
        proposal = self._proposer.propose(number, ledger)
        if proposal is None:
            return None
        now = self._clock()
        ledger.add(
            number,
            identity=proposal.identity,
            config=proposal.config.model_dump_json(),
            parameters=proposal.values,
            memo=proposal.memo,
            lease=Lease(self._owner, slot, 1, now + self._lease_s),
            now=now,
        )
        return TrialRequest(str(number), proposal.config, proposal.values)

    def _row(self, ledger: Ledger, trial_id: str) -> sqlite3.Row:
        row = ledger.held(trial_id, self._owner, self._held.get(trial_id, 0))
        if row is None or row["state"] != TrialState.RUNNING:
            raise LostTrial(
                f"trial {trial_id} of sweep {self._sweep_id} is not this agent's",
                hint="another agent took it over after nothing was heard of it; what that one reports counts",
            )
        return row

    def _should_prune(self, ledger: Ledger, number: int) -> bool:
        if self._study is not None and self._study.has_pruner:
            return self._study.should_prune(number, ledger)
        rule = self._sweep.early_terminate
        if rule is None and len(self._sweep.objectives) > 1:
            rule = SEVERAL_OBJECTIVES_RULE
        if rule is None or not self._sweep.objectives:
            return False
        self._histories.update(ledger)
        goal = self._sweep.objectives[0].goal
        return should_stop(rule, goal, self._histories.of(number), self._histories.all())

    def _worth(self, ledger: Ledger, number: int, outcome: TrialOutcome) -> list[float | None]:
        reports = ledger.reports_of(number)
        values: list[float | None] = []
        for index, metric in enumerate(self._sweep.objectives):
            value = objective_value(metric, reports, outcome.result)
            if outcome.state is TrialState.FAILED or (value is None and outcome.state is TrialState.COMPLETE):
                others = [worths[index] for worths in ledger.objectives()]
                value = imputed_value(metric, reports, [other for other in others if other is not None])
            values.append(value)
        return values


def _study_proposer(sweep: SweepFile, row: sqlite3.Row, histories: Histories) -> "StudyProposer | None":
    if sweep.method not in ("bayes", "custom"):
        return None
    from fer_sweep.search.study import StudyProposer  # only here: optuna takes half a second to import

    return StudyProposer(
        sweep,
        Space.from_sweep(sweep),
        sweep_id=row["id"],
        seed=row["seed"],
        max_gap=row["max_gap"],
        histories=histories,
    )


def _plain_proposer(sweep: SweepFile, seed: int) -> Proposer:
    space = Space.from_sweep(sweep)
    return GridProposer(space) if sweep.method == "grid" else RandomProposer(space, seed)


def _record(row: sqlite3.Row) -> TrialRecord:
    state = TrialState(row["state"])
    result = TrialResult.model_validate(json.loads(row["result"])) if row["result"] else None
    is_over = state not in (TrialState.RUNNING, TrialState.PREEMPTED)
    return TrialRecord(
        trial_id=str(row["number"]),
        state=state,
        config=json.loads(row["config"]),
        parameters=json.loads(row["parameters"]),
        metrics=result_metrics(result) if is_over and result is not None else json.loads(row["metrics"]),
        result=result,
        reason=row["reason"],
        attempt=row["attempt"],
        started_at=row["started"],
        ended_at=row["ended"],
    )
