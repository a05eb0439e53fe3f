"""The trials of one sweep in the database: every statement of the searches."""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fer_sweep import owners
from fer_sweep.config.sweep_file import SweepFile, parse_sweep
from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import InputError
from fer_sweep.records import SweepState, TrialOutcome, TrialResult, TrialState
from fer_sweep.store.database import Database
from fer_sweep.store.engine import Connection, Row
from fer_sweep.store.queue import Picked, Prior
from fer_sweep.store.schema import UNENDED, sampler_before_4


@dataclass(frozen=True)
class Lease:
    """The exclusive ownership of a trial by one attempt."""

    owner: str
    slot: str
    attempt: int
    until: float
    """Unix time, seconds."""


@dataclass(frozen=True)
class Settings:
    """What a sweep searches for, and how; equal whatever its state."""

    state: SweepState = field(compare=False)
    spec: str
    """The sweep file as JSON; a change of the text is a change of the sweep."""
    seed: int
    max_gap: float | None
    budget_epochs: int | None
    """Epochs, reported by all trials together, from which on no new trial starts."""
    steered: int | None
    """Number of the first trial whose memo belongs to the present space; None if all trials come from one space."""
    sampler: str | None = None
    """What searches a sweep of method bayes, see ``config.samplers``; None to choose by its file."""
    until_converged: bool = False
    """Whether it finishes once going on is not worth it."""

    @property
    def file(self) -> SweepFile:
        """The sweep file, parsed."""
        return parse_sweep(json.loads(self.spec))


@contextlib.contextmanager
def ledger_of(database: Database, sweep_id: str, *, write: bool = False) -> Iterator["Ledger"]:
    """One sweep's rows in a transaction; see ``Database.transaction``."""
    with database.transaction(write=write) as connection:
        yield Ledger(connection, sweep_id)


class Ledger:
    """One sweep's rows, read and written in an open transaction; InputError where the sweep's own is missing."""

    def __init__(self, connection: Connection, sweep_id: str) -> None:
        self._connection = connection
        self._sweep_id = sweep_id

    def state(self) -> SweepState:
        """The state of the sweep."""
        return SweepState(self._sweep("state")["state"])

    def settings(self) -> Settings:
        """The settings of the sweep, with its state."""
        row = self._sweep("*")
        version = self._connection.version
        budget, steered = (row["budget_epochs"], row["steered"]) if version >= 3 else (None, None)
        sampler = row["sampler"] if version >= 4 else sampler_before_4(row["spec"])
        until_converged = version >= 4 and bool(row["until_converged"])
        return Settings(
            SweepState(row["state"]),
            *(row["spec"], row["seed"], row["max_gap"], budget, steered, sampler, until_converged),
        )

    def _sweep(self, columns: str) -> Row:
        row = self._connection.row(f"SELECT {columns} FROM fersweep_sweeps WHERE id = ?", [self._sweep_id])
        if row is None:
            newest = self._connection.rows("SELECT id FROM fersweep_sweeps ORDER BY position DESC LIMIT 5")
            known = ", ".join(other["id"] for other in newest)
            hint = f"the newest there: {known}" if known else "create one: fersweep create FILE"
            raise InputError(f"no sweep {self._sweep_id} in {self._connection.place}", hint=hint)
        return row

    def change_settings(self, sweep: SweepFile, *, budget_epochs: int | None, steered: int | None) -> None:
        """Replace the sweep's file and limits; its agents read them before their next proposals."""
        self._connection.change(
            "UPDATE fersweep_sweeps SET spec = ?, budget_epochs = ?, steered = ? WHERE id = ?",
            [json.dumps(sweep.to_plain()), budget_epochs, steered, self._sweep_id],
        )

    def go_on(self) -> None:
        """The sweep no longer finishes because going on is not worth it."""
        self._connection.change("UPDATE fersweep_sweeps SET until_converged = 0 WHERE id = ?", [self._sweep_id])

    def reported_epochs(self) -> int:
        """Epochs that all trials have reported, each once."""
        sql = "SELECT COUNT(*) AS epochs FROM fersweep_reports WHERE sweep_id = ?"
        return int(self._connection.rows(sql, [self._sweep_id])[0]["epochs"])

    def enqueue(self, picked: Picked) -> None:
        """A configuration picked by hand is trained after those enqueued before."""
        add = "INSERT INTO fersweep_queue (sweep_id, config, parameters) VALUES (?, ?, ?)"
        self._connection.change(add, [self._sweep_id, *picked.columns()])

    def queue(self) -> Sequence[Picked]:
        """The configurations that are trained next, in order."""
        return [Picked.of(row) for row in self._own_rows("fersweep_queue")]

    def take_queued(self) -> Picked | None:
        """Remove the next configuration from the queue; one of which there is a trial by now is skipped."""
        for row in self._own_rows("fersweep_queue"):
            self._connection.change("DELETE FROM fersweep_queue WHERE id = ?", [row["id"]])
            picked = Picked.of(row)
            if self.find(picked.config.model_dump_json()) is None:
                return picked
        return None

    def add_prior(self, prior: Prior) -> None:
        """The search learns from a trial of another sweep."""
        self._connection.change(
            "INSERT INTO fersweep_priors (sweep_id, config, parameters, objectives, gap, source, is_alike, curves)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [self._sweep_id, *prior.columns()],
        )

    def priors(self) -> Sequence[Prior]:
        """The trials of other sweeps that the search learns from."""
        return [Prior.of(row, self._connection.version) for row in self._own_rows("fersweep_priors")]

    def _own_rows(self, table: str) -> Sequence[Row]:
        if self._connection.version < 3:
            return []
        return self._connection.rows(f"SELECT * FROM {table} WHERE sweep_id = ? ORDER BY id", [self._sweep_id])

    def finish_sweep(self) -> None:
        """Finish a running sweep; one that was paused, stopped or cancelled stays so."""
        self.move_sweep(SweepState.FINISHED, SweepState.RUNNING)

    def reopen_sweep(self) -> None:
        """Let a finished sweep run again; one in another state stays in it."""
        self.move_sweep(SweepState.RUNNING, SweepState.FINISHED)

    def move_sweep(self, after: SweepState, *before: SweepState) -> None:
        """Set the state of a sweep that is in one of some states; one in another state stays in it."""
        self._connection.change(
            f"UPDATE fersweep_sweeps SET state = ? WHERE id = ? AND state IN ({_marks(before)})",
            [after, self._sweep_id, *before],
        )

    def count(self) -> int:
        """Trials handed out so far, each once; the next one's number."""
        # Numbers have no gap, and the last one is found without looking at all the others.
        last: int | None = self._trials("MAX(number) AS last", "")[0]["last"]
        return 0 if last is None else last + 1

    def find(self, identity: str) -> Row | None:
        """The trial with this identity."""
        return next(iter(self._trials("*", "AND identity = ?", [identity])), None)

    def numbered(self, numbers: Collection[int], columns: str = "*") -> Sequence[Row]:
        """The trials with these numbers, in order."""
        return self._trials(columns, f"AND number IN ({_marks(numbers)}) ORDER BY number", list(numbers))

    def configs_from(self, number: int) -> Sequence[Row]:
        """Number and config of every trial from this number on, in order."""
        return self._trials("number, config", "AND number >= ? ORDER BY number", [number])

    def unended(self) -> Sequence[Row]:
        """The running, preempted and paused trials, in order."""
        return self._trials("*", f"AND {UNENDED} ORDER BY number")

    def paused(self) -> Sequence[Row]:
        """The paused trials, in order."""
        return [row for row in self.unended() if row["state"] == TrialState.PAUSED]

    def live_owners(self, now: float) -> Sequence[str]:
        """The agents that train trials of this sweep: owners of valid leases that may be alive."""
        rows = self._trials("DISTINCT owner", "AND state = ? AND lease_until > ?", [TrialState.RUNNING, now])
        return sorted(row["owner"] for row in rows if not owners.is_dead(row["owner"]))

    def perhaps_free(self, owner: str, host: str, now: float) -> Sequence[Row]:
        """The unended trials that may be unleased, in order: those of ``owner``, of owners on ``host``, and stale ones.

        The others have a valid lease of another host, about which this one knows no more. A proposal that read them
        would read a row for every agent: with 256 agents, half as many proposals a second.
        """
        return self._trials(
            "*",
            f"AND {UNENDED} AND state <> 'paused'"
            " AND (state = 'preempted' OR lease_until <= ? OR owner = ? OR SUBSTR(owner, 1, ?) = ?)"
            " ORDER BY number",
            [now, owner, len(host), host],
        )

    def states(self) -> Sequence[Row]:
        """Number, state and parameters of every trial, in order."""
        return self._trials("number, state, parameters", "ORDER BY number")

    def all(self) -> Sequence[Row]:
        """Every trial, in order."""
        return self._trials("*", "ORDER BY number")

    def since(self, number: int, unended: Collection[int]) -> Sequence[Row]:
        """Those of ``unended``, before ``number``, that have ended by now, and the trials from ``number``, in order."""
        # Two queries, since with an OR between them the engines look at every trial of the sweep.
        ended = self._trials("*", f"AND number IN ({_marks(unended)}) AND NOT {UNENDED} ORDER BY number", list(unended))
        return [*ended, *self._trials("*", "AND number >= ? ORDER BY number", [number])]

    def held(self, number: int, owner: str, attempt: int) -> Row | None:
        """The trial, whatever its state, if this is its latest attempt and owner."""
        found = self._trials("*", "AND number = ? AND owner = ? AND attempt = ?", [number, owner, attempt])
        return next(iter(found), None)

    def add(
        self,
        number: int,
        *,
        identity: str,
        config: TrialConfig,
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
                *(self._sweep_id, number, identity, config.model_dump_json(), json.dumps(dict(parameters)), memo),
                *(TrialState.RUNNING, lease.slot, lease.owner, lease.attempt, lease.until, now),
            ],
        )

    def hand_over(self, number: int, lease: Lease) -> None:
        """An unended trial gets a new owner, who runs it."""
        self._change(
            number,
            "state = ?, slot = ?, owner = ?, attempt = ?, lease_until = ?,"
            " reason = NULL, objectives = NULL, result = NULL",
            [TrialState.RUNNING, lease.slot, lease.owner, lease.attempt, lease.until],
        )

    def renew(self, number: int, until: float) -> None:
        """The lease is valid until then."""
        self._change(number, "lease_until = ?", [until])

    def record_epoch(self, number: int, epoch: int, metrics: Mapping[str, float], lease_until: float) -> bool:
        """Write one epoch's metrics and the lease; returns whether the epoch is reported for the first time."""
        text, key = json.dumps(dict(metrics)), [self._sweep_id, number, epoch]
        # Deleted and added instead of updated: with a new id, readers of what is new see it.
        is_new = not self._connection.change(
            "DELETE FROM fersweep_reports WHERE sweep_id = ? AND number = ? AND epoch = ?", key
        )
        add = "INSERT INTO fersweep_reports (sweep_id, number, epoch, metrics) VALUES (?, ?, ?, ?)"
        self._connection.change(add, [*key, text])
        self._change(number, "metrics = ?, lease_until = ?", [text, lease_until])
        return is_new

    def end(self, number: int, outcome: TrialOutcome, *, objectives: Sequence[float | None] = (), now: float) -> None:
        """How an attempt ended, and what the trial is worth in each objective; see ``TrialState.has_ended``."""
        self._change(
            number,
            "state = ?, lease_until = 0, ended = ?, objectives = ?, result = ?, reason = ?",
            [
                outcome.state,
                now if outcome.state.has_ended else None,
                json.dumps(list(objectives)),
                json.dumps(outcome.result.model_dump(mode="json")) if outcome.result else None,
                outcome.reason,
            ],
        )

    def prune_paused(self, reason: str, now: float) -> None:
        """End the paused trials, which are not resumed any more: what they have reached so far is their result."""
        for row in self.paused():
            result = TrialResult.model_validate_json(row["result"]) if row["result"] else None
            outcome = TrialOutcome(TrialState.PRUNED, result, reason)
            self.end(row["number"], outcome, objectives=json.loads(row["objectives"]), now=now)

    def results(self) -> Sequence[str]:
        """The results of the trials that have one, as JSON, in order."""
        return [row["result"] for row in self._trials("result", "AND result IS NOT NULL ORDER BY number")]

    def failed(self) -> Sequence[Row]:
        """The failed trials, in order."""
        return self._trials("*", "AND state = ? ORDER BY number", [TrialState.FAILED])

    def requeue(self, number: int) -> None:
        """Requeue a failed trial: it is resumed as a preempted one is."""
        self._change(number, "state = ?, reason = NULL, ended = NULL", [TrialState.PREEMPTED])

    def objectives(self) -> list[list[float | None]]:
        """What every complete or pruned trial is worth, in order."""
        valued = [state for state in TrialState if state.has_value]
        rows = self._trials("objectives", f"AND state IN ({_marks(valued)}) ORDER BY number", valued)
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


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values)) or "NULL"  # PostgreSQL allows no empty list
