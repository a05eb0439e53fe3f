"""The states in which a run can be on a W&B server, and trials read from its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    "finished": RunState(TrialState.COMPLETE, (TrialState.COMPLETE, TrialState.PRUNED)),
    "failed": RunState(TrialState.FAILED, (TrialState.FAILED, TrialState.PREEMPTED)),
    "crashed": RunState(TrialState.FAILED, (TrialState.FAILED, TrialState.PREEMPTED)),
    "killed": RunState(TrialState.FAILED, (TrialState.FAILED, TrialState.PREEMPTED)),
}
OPEN = tuple(word for word, state in RUN_STATES.items() if state.is_open)


def state_of(run: ServerRun) -> RunState:
    """What the run's state means; a state that W&B adds later counts as failed."""
    return RUN_STATES.get(run.state, RunState(TrialState.FAILED))


def has_ended(run: ServerRun | None) -> bool:
    """Whether the agent that trained a run has reported its end.

    The server's state alone does not show that: a run without a heartbeat becomes crashed or killed after some minutes,
    and an agent that lost its trial's lease closes the run as failed.
    """
    if run is None:
        return False
    if run.state == "failed":
        return run.summary.get("state") == TrialState.FAILED
    return run.state == "finished"


def merged(here: Sequence[TrialRecord], there: Sequence[ServerRun]) -> Sequence[TrialRecord]:
    """The trials of this database and of the server, oldest first; the database's record wins.

    The exception is a trial that was preempted here and has ended on another host since.
    """
    runs = {run.id: run for run in there}
    found = {run_id: record_from(run) for run_id, run in runs.items()} | {
        record.trial_id: record
        for record in here
        if record.state is not TrialState.PREEMPTED or not has_ended(runs.get(record.trial_id))
    }
    return sorted(found.values(), key=lambda record: record.started_at or 0.0)


def record_from(run: ServerRun) -> TrialRecord:
    """The trial that a run records."""
    result = _result(run.summary)
    state = state_of(run).trial
    if state is TrialState.COMPLETE and run.summary.get("state") == TrialState.PRUNED:
        state = TrialState.PRUNED
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


def _result(summary: Mapping[str, Any]) -> TrialResult | None:
    try:
        return TrialResult.model_validate({name: summary[name] for name in TrialResult.model_fields if name in summary})
    except ValidationError:
        return None  # a run of another program, or one that has not ended
