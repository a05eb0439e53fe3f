"""The embedded search: every agent of a sweep on one SQLite file, no server and no account.

Each step is one transaction, so a process killed anywhere leaves the sweep as it was before or after that step:
a trial is never half made, handed out twice, or beyond the cap. Our tables are the truth; Optuna's samplers see them
through a study in memory (``search.study``), which makes a step some ten times faster than Optuna's own tables and
leaves optuna unimported where it is not needed: grid, random, status, pause.

A trial belongs to whoever holds its lease: an owner, an attempt and a time. The lease is renewed by every report;
when it has run out, or its owner was a process of this host that is no longer there, ``next_trial`` hands the trial
out again as the next attempt, and the late report of the former owner is refused.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.config.trial import parse_trial
from fer_sweep.errors import LostTrial
from fer_sweep.records import StopReason, TrialOutcome, TrialRecord, TrialRequest, TrialResult, TrialState, Wait
from fer_sweep.search import owners
from fer_sweep.search.database import Connection, Database
from fer_sweep.search.objective import objective_value, reaches_target, result_metrics
from fer_sweep.search.sampling import GridProposer, Proposer, RandomProposer
from fer_sweep.search.storage import (
    SweepState,
    SweepSummary,
    create_sweep,
    default_storage,
    list_sweeps,
    load_sweep,
    no_such_sweep,
    set_sweep_state,
    sweep_state,
)

__all__ = [
    "OptunaSearch",
    "SweepState",
    "SweepSummary",
    "create_sweep",
    "default_storage",
    "list_sweeps",
    "load_sweep",
    "set_sweep_state",
    "sweep_state",
]


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
        self._database = Database(storage)
        try:
            with self._database.transaction(write=False) as connection:
                row = self._sweep_row(connection)
            self._sweep = parse_sweep(json.loads(row["spec"]))
            self._proposer = _proposer(Space.from_sweep(self._sweep), self._sweep.method, row["seed"])
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Give up what is still held, so that others need not wait for its lease to end, and let the file go."""
        with self._lock:
            if self._held:
                with self._database.transaction(write=True) as connection:
                    for trial_id, attempt in self._held.items():
                        connection.change(
                            "UPDATE fersweep_trials SET lease_until = 0"
                            " WHERE sweep_id = ? AND number = ? AND owner = ? AND attempt = ?",
                            [self._sweep_id, int(trial_id), self._owner, attempt],
                        )
                self._held.clear()
            self._database.close()

    def next_trial(self, slot: str) -> TrialRequest | Wait | None:
        """See ``Search.next_trial``."""
        with self._lock, self._database.transaction(write=True) as connection:
            state = self._state(connection)
            if state is SweepState.PAUSED:
                return Wait("the sweep is paused")
            if state is not SweepState.RUNNING:
                return None
            request = self._take_over(connection, slot) or self._start_new(connection, slot)
            if request is None and not self._open_trials(connection):
                self._set_state(connection, SweepState.FINISHED)
        if request is not None:
            self._held[request.trial_id] = request.attempt
        return request

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> StopReason | None:
        """See ``Search.report``."""
        with self._lock, self._database.transaction(write=True) as connection:
            trial = self._held_trial(connection, trial_id)
            now = self._clock()
            if metrics:
                connection.change(
                    "DELETE FROM fersweep_reports WHERE sweep_id = ? AND number = ? AND epoch = ?",
                    [self._sweep_id, trial["number"], epoch],
                )
                connection.change(
                    "INSERT INTO fersweep_reports (sweep_id, number, epoch, metrics) VALUES (?, ?, ?, ?)",
                    [self._sweep_id, trial["number"], epoch, json.dumps(dict(metrics))],
                )
            connection.change(
                "UPDATE fersweep_trials SET lease_until = ?, metrics = ? WHERE sweep_id = ? AND number = ?",
                [
                    now + self._lease_s,
                    json.dumps(dict(metrics)) if metrics else trial["metrics"],
                    self._sweep_id,
                    trial["number"],
                ],
            )
            if self._state(connection) is SweepState.CANCELLED:
                return StopReason.PREEMPTED
        return None

    def finish(self, trial_id: str, outcome: TrialOutcome) -> None:
        """See ``Search.finish``."""
        with self._lock, self._database.transaction(write=True) as connection:
            trial = self._held_trial(connection, trial_id)
            number = trial["number"]
            reports = [
                json.loads(row["metrics"])
                for row in connection.rows(
                    "SELECT metrics FROM fersweep_reports WHERE sweep_id = ? AND number = ? ORDER BY epoch",
                    [self._sweep_id, number],
                )
            ]
            values = [objective_value(metric, reports, outcome.result) for metric in self._sweep.objectives]
            ended = None if outcome.state is TrialState.PREEMPTED else self._clock()
            result = outcome.result
            connection.change(
                "UPDATE fersweep_trials SET state = ?, lease_until = 0, ended = ?, objectives = ?, result = ?,"
                " reason = ? WHERE sweep_id = ? AND number = ?",
                [
                    outcome.state,
                    ended,
                    json.dumps(values),
                    json.dumps(result.model_dump(mode="json")) if result else None,
                    outcome.reason,
                    self._sweep_id,
                    number,
                ],
            )
            if any(reaches_target(m, v) for m, v in zip(self._sweep.objectives, values, strict=True)):
                self._set_state(connection, SweepState.FINISHED)
        self._held.pop(trial_id, None)

    def records(self) -> Sequence[TrialRecord]:
        """See ``Search.records``."""
        with self._lock, self._database.transaction(write=False) as connection:
            rows = connection.rows("SELECT * FROM fersweep_trials WHERE sweep_id = ? ORDER BY number", [self._sweep_id])
        return [_record(row) for row in rows]

    def _take_over(self, connection: Connection, slot: str) -> TrialRequest | None:
        now = self._clock()
        for row in connection.rows(
            "SELECT * FROM fersweep_trials WHERE sweep_id = ? AND state IN (?, ?) ORDER BY number",
            [self._sweep_id, TrialState.RUNNING, TrialState.PREEMPTED],
        ):
            if row["state"] == TrialState.RUNNING and row["lease_until"] > now and not owners.is_dead(row["owner"]):
                continue
            attempt = row["attempt"] + 1
            connection.change(
                "UPDATE fersweep_trials SET state = ?, slot = ?, owner = ?, attempt = ?, lease_until = ?, reason = NULL"
                " WHERE sweep_id = ? AND number = ?",
                [TrialState.RUNNING, slot, self._owner, attempt, now + self._lease_s, self._sweep_id, row["number"]],
            )
            config = parse_trial(json.loads(row["config"]))
            return TrialRequest(str(row["number"]), config, json.loads(row["parameters"]), attempt)
        return None

    def _start_new(self, connection: Connection, slot: str) -> TrialRequest | None:
        counted = connection.rows("SELECT COUNT(*) FROM fersweep_trials WHERE sweep_id = ?", [self._sweep_id])
        number = counted[0][0]
        if self._sweep.run_cap is not None and number >= self._sweep.run_cap:
            return None

        def is_taken(identity: str) -> bool:
            return (
                connection.row(
                    "SELECT 1 FROM fersweep_trials WHERE sweep_id = ? AND identity = ?", [self._sweep_id, identity]
                )
                is not None
            )

        proposal = self._proposer.propose(number, is_taken)
        if proposal is None:
            return None
        config = parse_trial(proposal.values)
        now = self._clock()
        connection.change(
            "INSERT INTO fersweep_trials (sweep_id, number, identity, config, parameters, memo, state, slot, owner,"
            " attempt, lease_until, started, metrics) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, '{}')",
            [
                self._sweep_id,
                number,
                proposal.identity,
                config.model_dump_json(),
                json.dumps(dict(proposal.values)),
                proposal.memo,
                TrialState.RUNNING,
                slot,
                self._owner,
                now + self._lease_s,
                now,
            ],
        )
        return TrialRequest(str(number), config, dict(proposal.values))

    def _held_trial(self, connection: Connection, trial_id: str) -> sqlite3.Row:
        row = connection.row(
            "SELECT * FROM fersweep_trials WHERE sweep_id = ? AND number = ? AND owner = ? AND attempt = ?"
            " AND state = ?",
            [
                self._sweep_id,
                int(trial_id) if trial_id.isdigit() else -1,
                self._owner,
                self._held.get(trial_id, -1),
                TrialState.RUNNING,
            ],
        )
        if row is None:
            raise LostTrial(
                f"trial {trial_id} of sweep {self._sweep_id} is no longer this agent's",
                hint="another agent took it over, since nothing was heard of it; what it does counts",
            )
        return row

    def _open_trials(self, connection: Connection) -> int:
        counted = connection.rows(
            "SELECT COUNT(*) FROM fersweep_trials WHERE sweep_id = ? AND state IN (?, ?)",
            [self._sweep_id, TrialState.RUNNING, TrialState.PREEMPTED],
        )
        count: int = counted[0][0]
        return count

    def _sweep_row(self, connection: Connection) -> sqlite3.Row:
        row = connection.row("SELECT * FROM fersweep_sweeps WHERE id = ?", [self._sweep_id])
        if row is None:
            raise no_such_sweep(connection, self._sweep_id, self._database.path)
        return row

    def _state(self, connection: Connection) -> SweepState:
        return SweepState(self._sweep_row(connection)["state"])

    def _set_state(self, connection: Connection, state: SweepState) -> None:
        connection.change("UPDATE fersweep_sweeps SET state = ? WHERE id = ?", [state, self._sweep_id])


def _proposer(space: Space, method: str, seed: int) -> Proposer:
    if method == "grid":
        return GridProposer(space)
    return RandomProposer(space, seed)


def _record(row: sqlite3.Row) -> TrialRecord:
    state = TrialState(row["state"])
    result = TrialResult.model_validate(json.loads(row["result"])) if row["result"] else None
    metrics: dict[str, Any] = json.loads(row["metrics"])
    ended = state not in (TrialState.RUNNING, TrialState.PREEMPTED)
    return TrialRecord(
        trial_id=str(row["number"]),
        state=state,
        config=json.loads(row["config"]),
        parameters=json.loads(row["parameters"]),
        metrics=result_metrics(result) if ended and result is not None else metrics,
        result=result,
        reason=row["reason"],
        attempt=row["attempt"],
        started_at=row["started"],
        ended_at=row["ended"],
    )
