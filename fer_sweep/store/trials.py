"""The trials of one sweep within one transaction: every statement the search runs, and nothing it decides."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fer_sweep.errors import InputError
from fer_sweep.records import TrialRecord, TrialResult, TrialState
from fer_sweep.store.database import Connection, Row
from fer_sweep.store.schema import UNENDED


class SweepState(StrEnum):
    """Where a sweep stands."""

    RUNNING = "running"
    PAUSED = "paused"
    """Hands out nothing; agents wait."""
    STOPPED = "stopped"
    """Hands out nothing; what runs finishes; agents end. Can be resumed."""
    CANCELLED = "cancelled"
    """What runs is checkpointed and stopped. For good."""
    FINISHED = "finished"
    """At its cap, exhausted, or its target reached. For good."""


@dataclass(frozen=True)
class Lease:
    """Who works on a trial, for which time, and until when it is theirs without another word."""

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
        """Where the sweep stands.

        Raises:
            InputError: The sweep is not there any more.
        """
        row = self._connection.row("SELECT state FROM fersweep_sweeps WHERE id = ?", [self._sweep_id])
        if row is None:
            raise InputError(f"sweep {self._sweep_id} has been deleted from the database")
        return SweepState(row["state"])

    def finish_sweep(self) -> None:
        """A running sweep is over; one that was paused, stopped or cancelled stays so."""
        self._connection.change(
            "UPDATE fersweep_sweeps SET state = ? WHERE id = ? AND state = ?",
            [SweepState.FINISHED, self._sweep_id, SweepState.RUNNING],
        )

    def reopen_sweep(self) -> None:
        """A finished sweep runs again; one in another state stays in it."""
        self._connection.change(
            "UPDATE fersweep_sweeps SET state = ? WHERE id = ? AND state = ?",
            [SweepState.RUNNING, self._sweep_id, SweepState.FINISHED],
        )

    def count(self) -> int:
        """Trials handed out so far, each once; the next one's number."""
        # Numbers have no gap, and the last one is found without looking at all the others.
        last: int | None = self._trials("MAX(number) AS last", "")[0]["last"]
        return 0 if last is None else last + 1

    def is_taken(self, identity: str) -> bool:
        """Whether a trial with this identity exists."""
        return self.find(identity) is not None

    def find(self, identity: str) -> Row | None:
        """The trial with this identity."""
        rows = self._trials("*", "AND identity = ?", [identity])
        return rows[0] if rows else None

    def numbered(self, numbers: Collection[int]) -> Sequence[Row]:
        """The trials with these numbers, in order."""
        marks = ", ".join("?" * len(numbers)) or "NULL"
        return self._trials("*", f"AND number IN ({marks}) ORDER BY number", list(numbers))

    def configs_from(self, number: int) -> Sequence[Row]:
        """Number and config of every trial from this number on, in order."""
        return self._trials("number, config", "AND number >= ? ORDER BY number", [number])

    def unended(self) -> Sequence[Row]:
        """Trials running or to be gone on with, in order."""
        return self._trials("*", f"AND {UNENDED} ORDER BY number")

    def has_unended(self) -> bool:
        """Whether a trial runs or is to be gone on with."""
        return bool(self._trials("number", f"AND {UNENDED} LIMIT 1"))

    def perhaps_free(self, owner: str, host: str, now: float) -> Sequence[Row]:
        """Those unended trials that nobody may have in hand, in order.

        Left out, so that a proposal does not read a row for every agent there is, are those whose lease holds and whose
        owner is of another host, of which nothing more can be said from here.

        Args:
            owner: Whose trials to give in any case.
            host: What the names of owners on this host begin with; their trials are given too.
            now: Unix time, seconds.
        """
        return self._trials(
            "*",
            f"AND {UNENDED} AND (state = 'preempted' OR lease_until <= ? OR owner = ? OR SUBSTR(owner, 1, ?) = ?)"
            " ORDER BY number",
            [now, owner, len(host), host],
        )

    def all(self) -> Sequence[Row]:
        """Every trial, in order."""
        return self._trials("*", "ORDER BY number")

    def since(self, number: int, unended: Collection[int]) -> Sequence[Row]:
        """Those of ``unended``, earlier than ``number``, that have ended meanwhile, and trials from it on, in order."""
        # Two queries, since with an OR between them engines look at every trial of the sweep.
        marks = ", ".join("?" * len(unended)) or "NULL"  # an empty list is not for every engine
        ended = self._trials("*", f"AND number IN ({marks}) AND NOT {UNENDED} ORDER BY number", list(unended))
        return [*ended, *self._trials("*", "AND number >= ? ORDER BY number", [number])]

    def held(self, number: int, owner: str, attempt: int) -> Row | None:
        """The trial if this attempt of this owner is its latest one, whatever its state."""
        rows = self._trials("*", "AND number = ? AND owner = ? AND attempt = ?", [number, owner, attempt])
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
        """A new trial, running."""
        self._connection.change(
            "INSERT INTO fersweep_trials (sweep_id, number, identity, config, parameters, memo, state, slot, owner,"
            " attempt, lease_until, started, metrics) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '{}')",
            [
                self._sweep_id,
                number,
                identity,
                config,
                json.dumps(dict(parameters)),
                memo,
                TrialState.RUNNING,
                lease.slot,
                lease.owner,
                lease.attempt,
                lease.until,
                now,
            ],
        )

    def hand_over(self, number: int, lease: Lease) -> None:
        """An unended trial gets a new owner, who runs it."""
        self._change(
            number,
            "state = ?, slot = ?, owner = ?, attempt = ?, lease_until = ?, reason = NULL",
            [TrialState.RUNNING, lease.slot, lease.owner, lease.attempt, lease.until],
        )

    def renew(self, number: int, until: float) -> None:
        """The lease holds until then."""
        self._change(number, "lease_until = ?", [until])

    def record_epoch(
        self, number: int, epoch: int, metrics: Mapping[str, float], *, lease_until: float | None = None
    ) -> bool:
        """Write one epoch's metrics, and the lease if one is given; returns whether they replaced earlier ones."""
        text = json.dumps(dict(metrics))
        add = "INSERT INTO fersweep_reports (sweep_id, number, epoch, metrics) VALUES (?, ?, ?, ?)"
        values = [self._sweep_id, number, epoch, text]
        is_new = bool(self._connection.change(f"{add} ON CONFLICT (sweep_id, number, epoch) DO NOTHING", values))
        if not is_new:
            # Not changed in its place: what replaces it has an id of its own, and so is news to those who read on.
            self._connection.change(
                "DELETE FROM fersweep_reports WHERE sweep_id = ? AND number = ? AND epoch = ?", values[:3]
            )
            self._connection.change(add, values)
        if lease_until is None:
            self._change(number, "metrics = ?", [text])
        else:  # with one change of the row rather than two
            self._change(number, "metrics = ?, lease_until = ?", [text, lease_until])
        return not is_new

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
        """How an attempt ended; a preempted trial has not ended."""
        self._change(
            number,
            "state = ?, lease_until = 0, ended = ?, objectives = ?, result = ?, reason = ?",
            [state, now if state.has_ended else None, json.dumps(list(objectives)), result, reason],
        )

    def failed(self) -> Sequence[Row]:
        """Trials that have failed, in order."""
        return self._trials("*", "AND state = ? ORDER BY number", [TrialState.FAILED])

    def requeue(self, number: int) -> None:
        """Queue a failed trial again: it is resumed as a preempted one is."""
        self._change(number, "state = ?, reason = NULL, ended = NULL", [TrialState.PREEMPTED])

    def attempts(self, numbers: Collection[int]) -> Mapping[int, int]:
        """How often each of these trials has been handed out; of those that have ended."""
        marks = ", ".join("?" * len(numbers)) or "NULL"
        rows = self._trials("number, attempt", f"AND number IN ({marks}) AND NOT {UNENDED}", list(numbers))
        return {row["number"]: row["attempt"] for row in rows}

    def objectives(self) -> list[list[float | None]]:
        """What every complete or pruned trial is worth, in order."""
        rows = self._trials(
            "objectives", "AND state IN (?, ?) ORDER BY number", [TrialState.COMPLETE, TrialState.PRUNED]
        )
        return [json.loads(row["objectives"]) for row in rows]

    def reports_after(self, report: int) -> Sequence[Row]:
        """Reports (id, number, epoch, metrics) that came after the one with this id, in order of arrival."""
        return self._connection.rows(
            "SELECT id, number, epoch, metrics FROM fersweep_reports WHERE sweep_id = ? AND id > ? ORDER BY id",
            [self._sweep_id, report],
        )

    def reports_of(self, number: int) -> list[dict[str, float]]:
        """One trial's metrics by epoch, earliest first."""
        rows = self._connection.rows(
            "SELECT metrics FROM fersweep_reports WHERE sweep_id = ? AND number = ? ORDER BY epoch",
            [self._sweep_id, number],
        )
        return [json.loads(row["metrics"]) for row in rows]

    def _trials(self, columns: str, rest: str, values: Sequence[Any] = ()) -> Sequence[Row]:
        return self._connection.rows(
            f"SELECT {columns} FROM fersweep_trials WHERE sweep_id = ? {rest}", [self._sweep_id, *values]
        )

    def _change(self, number: int, columns: str, values: Sequence[Any]) -> None:
        self._connection.change(
            f"UPDATE fersweep_trials SET {columns} WHERE sweep_id = ? AND number = ?",
            [*values, self._sweep_id, number],
        )


def record_of(row: Row, trial_id: str) -> TrialRecord:
    """A trial's row as the record that crosses the search's seam."""
    state = TrialState(row["state"])
    result = TrialResult.model_validate(json.loads(row["result"])) if row["result"] else None
    return TrialRecord(
        trial_id=trial_id,
        state=state,
        config=json.loads(row["config"]),
        parameters=json.loads(row["parameters"]),
        metrics=result.numbers if state.has_ended and result is not None else json.loads(row["metrics"]),
        result=result,
        reason=row["reason"],
        attempt=row["attempt"],
        started_at=row["started"],
        ended_at=row["ended"],
    )


class Histories:
    """The finite values of one metric of every trial, kept up with what all agents report.

    Not to be updated in a transaction that reports something: were it undone, its report would stay in here.
    """

    def __init__(self, metric: str | None) -> None:
        self._metric = metric
        self._latest = 0
        """Id of the last report taken in."""
        self._by_epoch: dict[int, dict[int, float]] = {}
        self._values: dict[int, list[float]] = {}

    def update(self, ledger: Ledger) -> None:
        """Take in what is new."""
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
        """One trial's values, in the order of its epochs; not all of them need be finite."""
        return self._values.get(number, [])

    def all(self) -> Sequence[Sequence[float]]:
        """Every trial's values."""
        return list(self._values.values())
