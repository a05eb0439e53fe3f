"""The runs of a W&B server as records of trials."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fer_sweep.config.trial import flatten
from fer_sweep.records import EPOCH_METRICS, TrialRecord, TrialResult, TrialState
from fer_sweep.search.objective import result_metrics
from fer_sweep.search.wandb_messages import ServerRun

_STATES = {
    "running": TrialState.RUNNING,
    "pending": TrialState.RUNNING,
    "preempting": TrialState.RUNNING,
    "preempted": TrialState.PREEMPTED,
    "finished": TrialState.COMPLETE,
}
"""W&B's states of a run; whatever else there is, such as crashed or killed, has failed."""


def has_ended(record: TrialRecord | None) -> bool:
    """Whether there is a record, of a trial that is neither running nor to be gone on with."""
    return record is not None and record.state not in (TrialState.RUNNING, TrialState.PREEMPTED)


def record_of_run(run: ServerRun) -> TrialRecord:
    """A run as the record that crosses the search's seam."""
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
        metrics=result_metrics(result) if is_over and result else numbers,
        result=result,
        reason=str(reason) if reason else (run.state if state is TrialState.FAILED else None),
        started_at=run.created_at,
        ended_at=run.heartbeat_at if is_over else None,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _result(summary: Mapping[str, Any]) -> TrialResult | None:
    try:
        return TrialResult.model_validate({name: summary[name] for name in TrialResult.model_fields})
    except (KeyError, ValidationError):
        return None  # a run of another program, or one without an end
