"""The trials of one sweep within one transaction: the queries of the search, without its decisions."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, TextClause, delete, func, insert, or_, select, update

from fer_sweep.errors import InputError
from fer_sweep.records import TrialRecord, TrialResult, TrialState
from fer_sweep.store.database import Row
from fer_sweep.store.schema import UNENDED, reports, sweeps, trials


class SweepState(StrEnum):
    """The state of a sweep."""

    RUNNING = "running"
    PAUSED = "paused"
    """Starts no trials; agents wait."""
    STOPPED = "stopped"
    """Starts no trials; running ones finish, then agents end. Can be resumed."""
    CANCELLED = "cancelled"
    """Running trials are checkpointed and stopped. Final."""
    FINISHED = "finished"
    """The cap, the end of the space or the target is reached."""


_trial = trials.c
_ENDED = _trial.state.not_in(("running", "preempted"))


_UNENDED = (TrialState.RUNNING, TrialState.PREEMPTED)


@dataclass(frozen=True)
class Lease:
    """Exclusive ownership of a running trial, with its expiry."""

    owner: str
    slot: str
    attempt: int
    until: float
    """Unix time, seconds."""


class Ledger:
    """One sweep's rows, read and written in an open transaction."""

    def __init__(self, connection: Connection, sweep_id: str) -> None:
        self._connection = connection
        self._sweep_id = sweep_id

    def state(self) -> SweepState:
        """The sweep's state.

        Raises:
            InputError: The sweep has been deleted.
        """
        found = self._connection.execute(select(sweeps.c.state).where(sweeps.c.id == self._sweep_id)).scalar()
        if found is None:
            raise InputError(f"sweep {self._sweep_id} has been deleted from the database")
        return SweepState(found)

    def finish_sweep(self) -> None:
        """Finish a running sweep; a paused, stopped or cancelled one keeps its state."""
        self._move_sweep(SweepState.RUNNING, SweepState.FINISHED)

    def reopen_sweep(self) -> None:
        """Let a finished sweep run again; one in another state keeps it."""
        self._move_sweep(SweepState.FINISHED, SweepState.RUNNING)

    def count(self) -> int:
        """The number of trials, and so the next one's number."""
        # Numbers have no gap, and an index gives the last one at once.
        last = self._connection.execute(select(func.max(_trial.number)).where(self._mine)).scalar()
        return 0 if last is None else last + 1

    def find(self, identity: str) -> Row | None:
        """The trial with this identity."""
        return next(iter(self._rows(_trial.identity == identity)), None)

    def numbered(self, numbers: Collection[int]) -> Sequence[Row]:
        """The trials with these numbers, in order."""
        return self._rows(_trial.number.in_(numbers))

    def configs_from(self, number: int) -> Sequence[Row]:
        """Number and config of every trial from this number on, in order."""
        return self._rows(_trial.number >= number, columns=(_trial.number, _trial.config))

    def unended(self) -> Sequence[Row]:
        """Running and preempted trials, in order."""
        return self._rows(UNENDED)

    def has_unended(self) -> bool:
        """Whether any trial is running or preempted."""
        return self._connection.execute(select(_trial.number).where(self._mine, UNENDED).limit(1)).first() is not None

    def maybe_unleased(self, owner: str, host: str, now: float) -> Sequence[Row]:
        """Unended trials whose lease may be void, in order.

        Trials with a valid lease of another host are left out, so that a proposal does not read a row for every agent.

        Args:
            owner: Whose trials to include in any case.
            host: The prefix of owners on this host, whose trials are included too.
            now: Unix time, seconds.
        """
        return self._rows(
            UNENDED,
            or_(
                _trial.state == TrialState.PREEMPTED,
                _trial.lease_until <= now,
                _trial.owner == owner,
                func.substr(_trial.owner, 1, len(host)) == host,
            ),
        )

    def all(self) -> Sequence[Row]:
        """Every trial, in order."""
        return self._rows()

    def since(self, number: int, unended: Collection[int]) -> Sequence[Row]:
        """Those of the earlier trials ``unended`` that have ended, then all trials from ``number`` on, in order."""
        # Two queries, since an OR between them would read every trial of the sweep.
        return [*self._rows(_trial.number.in_(unended), _ENDED), *self._rows(_trial.number >= number)]

    def held(self, number: int, owner: str, attempt: int) -> Row | None:
        """The trial if its latest attempt is this one of this owner, whatever its state."""
        rows = self._rows(_trial.number == number, _trial.owner == owner, _trial.attempt == attempt)
        return rows[0] if rows else None

    def add(
        self,
        number: int,
        *,
        identity: str,
        config: str,
        parameters: Mapping[str, Any],
        memo: str | None,
        lease: Lease,
        now: float,
    ) -> None:
        """Add a trial, running."""
        self._connection.execute(
            insert(trials).values(
                sweep_id=self._sweep_id,
                number=number,
                identity=identity,
                config=config,
                parameters=json.dumps(dict(parameters)),
                memo=memo,
                started=now,
                metrics="{}",
                **_leased(lease),
            )
        )

    def hand_over(self, number: int, lease: Lease) -> None:
        """Give an unended trial a new owner, who runs it."""
        self._change(number, reason=None, **_leased(lease))

    def renew(self, number: int, until: float) -> None:
        """Set the lease's expiry."""
        self._change(number, lease_until=until)

    def record_epoch(
        self, number: int, epoch: int, metrics: Mapping[str, float], *, lease_until: float | None = None
    ) -> bool:
        """Write one epoch's metrics, and the lease's expiry if given; returns whether they replaced earlier ones."""
        key = {"sweep_id": self._sweep_id, "number": number, "epoch": epoch}
        text = json.dumps(dict(metrics))
        # Not updated in place: a new id makes the replacement new to readers that continue from the last id they saw.
        replaced = self._connection.execute(
            delete(reports).where(*(reports.c[column] == value for column, value in key.items()))
        )
        self._connection.execute(insert(reports).values(**key, metrics=text))
        self._change(number, metrics=text, **({} if lease_until is None else {"lease_until": lease_until}))
        return replaced.rowcount > 0

    def end(
        self,
        number: int,
        state: TrialState,
        *,
        objectives: Sequence[float | None],
        result: str | None,
        reason: str | None,
        now: float,
    ) -> None:
        """Record how an attempt ended; a preempted trial has not ended."""
        self._change(
            number,
            state=state,
            lease_until=0.0,
            ended=None if state in _UNENDED else now,
            objectives=json.dumps(list(objectives)),
            result=result,
            reason=reason,
        )

    def failed(self) -> Sequence[Row]:
        """Failed trials, in order."""
        return self._rows(_trial.state == TrialState.FAILED)

    def requeue(self, number: int) -> None:
        """Queue a failed trial again: it is resumed as a preempted one is."""
        self._change(number, state=TrialState.PREEMPTED, reason=None, ended=None)

    def attempts(self, numbers: Collection[int]) -> Mapping[int, int]:
        """The attempt of each of these trials that has ended."""
        rows = self._rows(_trial.number.in_(numbers), _ENDED, columns=(_trial.number, _trial.attempt))
        return {row["number"]: row["attempt"] for row in rows}

    def objectives(self) -> list[list[float | None]]:
        """The objectives of every complete or pruned trial, in order."""
        rows = self._rows(
            _trial.state.in_((TrialState.COMPLETE, TrialState.PRUNED)), columns=(_trial.number, _trial.objectives)
        )
        return [json.loads(row["objectives"]) for row in rows]

    def reports_after(self, report: int) -> Sequence[Row]:
        """Reports (id, number, epoch, metrics) with a larger id than this one, in order of arrival."""
        query = select(reports).where(reports.c.sweep_id == self._sweep_id, reports.c.id > report)
        return self._connection.execute(query.order_by(reports.c.id)).mappings().all()

    def reports_of(self, number: int) -> list[dict[str, float]]:
        """One trial's metrics by epoch, earliest first."""
        query = select(reports.c.metrics).where(reports.c.sweep_id == self._sweep_id, reports.c.number == number)
        return [json.loads(text) for text in self._connection.execute(query.order_by(reports.c.epoch)).scalars()]

    @property
    def _mine(self) -> ColumnElement[bool]:
        return trials.c.sweep_id == self._sweep_id

    def _rows(
        self,
        *conditions: ColumnElement[bool] | TextClause,
        columns: Sequence[ColumnElement[Any]] = tuple(trials.c),
    ) -> Sequence[Row]:
        query = select(*columns).where(self._mine, *conditions).order_by(_trial.number)
        return self._connection.execute(query).mappings().all()

    def _change(self, number: int, **values: Any) -> None:
        self._connection.execute(update(trials).where(self._mine, _trial.number == number).values(**values))

    def _move_sweep(self, before: SweepState, after: SweepState) -> None:
        is_there = (sweeps.c.id == self._sweep_id, sweeps.c.state == before)
        self._connection.execute(update(sweeps).where(*is_there).values(state=after))


def _leased(lease: Lease) -> dict[str, Any]:
    return {
        "state": TrialState.RUNNING,
        "slot": lease.slot,
        "owner": lease.owner,
        "attempt": lease.attempt,
        "lease_until": lease.until,
    }


def record_of(row: Row, trial_id: str) -> TrialRecord:
    """A trial's row as a record."""
    state = TrialState(row["state"])
    result = TrialResult.model_validate(json.loads(row["result"])) if row["result"] else None
    is_over = state not in _UNENDED
    return TrialRecord(
        trial_id=trial_id,
        state=state,
        config=json.loads(row["config"]),
        parameters=json.loads(row["parameters"]),
        metrics=result.numbers if is_over and result is not None else json.loads(row["metrics"]),
        result=result,
        reason=row["reason"],
        attempt=row["attempt"],
        started_at=row["started"],
        ended_at=row["ended"],
    )


class Histories:
    """The values of one metric of every trial, from the reports of all agents.

    Do not update it in a transaction that reports something: after a rollback the report would remain here.
    """

    def __init__(self, metric: str | None) -> None:
        self._metric = metric
        self._latest = 0
        """Id of the last report read."""
        self._by_epoch: dict[int, dict[int, float]] = {}
        self._values: dict[int, list[float]] = {}

    def update(self, ledger: Ledger) -> None:
        """Read the new reports."""
        if self._metric is None:
            return
        changed = set()
        for row in ledger.reports_after(self._latest):
            self._latest = row["id"]
            value = json.loads(row["metrics"]).get(self._metric)
            epochs = self._by_epoch.setdefault(row["number"], {})
            if value is None:
                epochs.pop(row["epoch"], None)
            else:
                epochs[row["epoch"]] = float(value)
            changed.add(row["number"])
        for number in changed:
            self._values[number] = [value for _, value in sorted(self._by_epoch[number].items())]

    def of(self, number: int) -> Sequence[float]:
        """One trial's values in the order of its epochs; some may not be finite."""
        return self._values.get(number, [])

    def all(self) -> Sequence[Sequence[float]]:
        """Every trial's values."""
        return list(self._values.values())
