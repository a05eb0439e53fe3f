"""Runs on a W&B server against the trials of this home: what a run records, and what to do so that both agree.

A run can differ from its trial because it was tracked offline, its upload failed, its agent was killed, or late writes
of wandb reopened it after its end. A server that searches hands out no open run and never finishes a sweep that has
one, so an open run that no agent trains must be ended (here) or trained (``server_search``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import ValidationError

from fer_sweep.config.trial import flatten
from fer_sweep.records import EPOCH_METRICS, TrialRecord, TrialResult, TrialState
from fer_sweep.wandb_client.messages import ServerRun


@dataclass(frozen=True)
class RunState:
    """What a run's state on the server means."""

    trial: TrialState
    """The state of its trial, where this home does not know the trial."""
    ends: tuple[TrialState, ...] = ()
    """The trial states whose upload leaves a run in this state."""
    is_open: bool = False
    """The server waits for the run's end: it hands the run out to no agent, and the sweep does not finish."""


RUN_STATES: Mapping[str, RunState] = {
    "pending": RunState(TrialState.RUNNING, is_open=True),
    "running": RunState(TrialState.RUNNING, is_open=True),
    "preempting": RunState(TrialState.RUNNING, (TrialState.PREEMPTED,), is_open=True),
    "preempted": RunState(TrialState.PREEMPTED, (TrialState.PREEMPTED,)),
    "finished": RunState(TrialState.COMPLETE, (TrialState.COMPLETE, TrialState.PRUNED, TrialState.PAUSED)),
    "failed": RunState(TrialState.FAILED, (TrialState.FAILED, TrialState.PREEMPTED)),
    "crashed": RunState(TrialState.FAILED, (TrialState.FAILED, TrialState.PREEMPTED)),
    "killed": RunState(TrialState.FAILED, (TrialState.FAILED, TrialState.PREEMPTED)),
}
_UNKNOWN = RunState(TrialState.FAILED)  # a state that W&B adds later
OPEN = tuple(word for word, state in RUN_STATES.items() if state.is_open)


class Action(StrEnum):
    """What to do about one run; the value is what ``fersweep sync`` prints once it is done."""

    UPLOAD = "uploaded"
    """The server does not have the run."""
    COMPLETE = "completed"
    """The server has part of the run, or the wrong end."""
    NONE = "already there"
    WAIT = "still running"
    """An agent trains or uploads the run, or may do so."""


UPLOADS = (Action.UPLOAD, Action.COMPLETE)


@dataclass(frozen=True)
class LocalTrial:
    """What this home knows of a trial."""

    trial_id: str
    run_id: str
    state: TrialState
    """A running trial that is not in use lost its agent, and counts as preempted."""
    lines: int = 0
    """Lines that its run's history must have; 0 if they need not be counted."""
    in_use: bool = False
    """An agent or a trial process trains it, or is to upload it."""
    is_settled: bool = False
    """It ended so long ago that its agent has uploaded its end: if its run is open, late writes reopened it."""
    server_resumes: bool = False
    """The server that searches this sweep hands the trial out again once it is preempted."""


def reconcile(local: Iterable[LocalTrial], remote: Iterable[ServerRun]) -> Mapping[str, Action]:
    """Decide what to do about the run of each trial of this home, given those of its sweep on the server."""
    runs = {run.id: run for run in remote}
    return {trial.trial_id: _action(trial, runs.get(trial.run_id)) for trial in local}


def _action(trial: LocalTrial, run: ServerRun | None) -> Action:
    on_server = None if run is None else RUN_STATES.get(run.state, _UNKNOWN)
    is_open = on_server is not None and on_server.is_open
    if trial.in_use:
        return Action.COMPLETE if trial.state.has_ended and trial.is_settled and is_open else Action.WAIT
    if trial.server_resumes and not trial.state.has_ended:
        return Action.WAIT if is_open else Action.NONE
    if run is None or on_server is None:
        return Action.UPLOAD
    state = TrialState.PREEMPTED if trial.state is TrialState.RUNNING else trial.state
    has_its_end = state in on_server.ends and run.summary.get("state") == state
    return Action.NONE if has_its_end and run.steps >= trial.lines else Action.COMPLETE


def has_ended(run: ServerRun) -> bool:
    """Whether the agent that trained a run has reported its end.

    The server's state alone does not show that: a run without a heartbeat becomes crashed or killed after some minutes,
    and an agent that lost its trial's lease closes the run as failed.
    """
    state = run.summary.get("state")
    return state == TrialState.FAILED if run.state == "failed" else run.state == "finished" and state != "paused"


def merged(here: Sequence[TrialRecord], there: Sequence[ServerRun]) -> Sequence[TrialRecord]:
    """The trials of this database and of the server, oldest first; the database's record wins.

    The exception is a trial that was preempted here and has ended on another host since.
    """
    found = {run.id: record_from(run) for run in there}
    ended = {run.id for run in there if has_ended(run)}
    for record in here:
        if record.state is not TrialState.PREEMPTED or record.trial_id not in ended:
            found[record.trial_id] = record
    return sorted(found.values(), key=lambda record: record.started_at or 0.0)


def record_from(run: ServerRun) -> TrialRecord:
    """The trial that a run records."""
    try:
        known = {name: run.summary[name] for name in TrialResult.model_fields if name in run.summary}
        result = TrialResult.model_validate(known)
    except ValidationError:
        result = None  # a run of another program, or one that has not ended
    state = RUN_STATES.get(run.state, _UNKNOWN).trial
    if state is TrialState.COMPLETE and run.summary.get("state") in (TrialState.PRUNED, TrialState.PAUSED):
        state = TrialState(run.summary["state"])
    numbers = {name: float(run.summary[name]) for name in EPOCH_METRICS if _is_number(run.summary.get(name))}
    reason = run.summary.get("reason")
    return TrialRecord(
        trial_id=run.id,
        state=state,
        config=run.config,
        parameters=flatten(run.config),
        metrics=result.numbers if state.has_ended and result else numbers,
        result=result,
        reason=str(reason) if reason else (run.state if state is TrialState.FAILED else None),
        started_at=run.created_at,
        ended_at=run.heartbeat_at if state.has_ended else None,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
