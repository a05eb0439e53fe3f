"""Trials from the runs that a W&B server has."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from fer_sweep.config.trial import flatten
from fer_sweep.records import EPOCH_METRICS, TrialRecord, TrialResult, TrialState
from fer_sweep.wandb_client.messages import ServerRun

_STATES = {
    "running": TrialState.RUNNING,
    "pending": TrialState.RUNNING,
    "preempting": TrialState.RUNNING,
    "preempted": TrialState.PREEMPTED,
    "finished": TrialState.COMPLETE,
}
"""W&B's states of a run; whatever else there is, such as crashed or killed, has failed."""


def has_ended(run: ServerRun | None) -> bool:
    """Whether whoever trained a run has said how it ended.

    The server alone does not know: it calls a run crashed or killed that it has not heard of for minutes, and failed
    where an agent closed it that had lost its trial to another one.
    """
    if run is None:
        return False
    if run.state == "failed":
        return run.summary.get("state") == TrialState.FAILED
    return run.state == "finished"


def merged(here: Sequence[TrialRecord], there: Sequence[ServerRun]) -> Sequence[TrialRecord]:
    """Trials of this database and of the server, as the one that knows better has them, oldest first."""
    runs = {run.id: run for run in there}
    # One that was preempted here may have ended on another host meanwhile.
    found = {run_id: record_from(run) for run_id, run in runs.items()} | {
        record.trial_id: record
        for record in here
        if record.state is not TrialState.PREEMPTED or not has_ended(runs.get(record.trial_id))
    }
    return sorted(found.values(), key=lambda record: record.started_at or 0.0)


def record_from(run: ServerRun) -> TrialRecord:
    """A run as the trial it is."""
    result = _result(run.summary)
    state = _STATES.get(run.state, TrialState.FAILED)
    if state is TrialState.COMPLETE and run.summary.get("state") == TrialState.PRUNED:
        state = TrialState.PRUNED
    is_over = state not in (TrialState.RUNNING, TrialState.PREEMPTED)
    numbers = {name: float(run.summary[name]) for name in EPOCH_METRICS if _is_number(run.summary.get(name))}
    reason = run.summary.get("reason")
    return TrialRecord(
        trial_id=run.id,
        state=state,
        config=run.config,
        parameters=flatten(run.config),
        metrics=result.numbers if is_over and result else numbers,
        result=result,
        reason=str(reason) if reason else (run.state if state is TrialState.FAILED else None),
        started_at=run.created_at,
        ended_at=run.heartbeat_at if is_over else None,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _result(summary: Mapping[str, Any]) -> TrialResult | None:
    try:
        return TrialResult.model_validate({name: summary[name] for name in TrialResult.model_fields if name in summary})
    except ValidationError:
        return None  # a run of another program, or one without an end
