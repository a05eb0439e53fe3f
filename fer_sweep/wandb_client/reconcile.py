"""What to do so that the runs on the W&B server agree with the trials of this home.

A run can differ from its trial because it was tracked offline, its upload failed, its agent was killed, or late writes
of wandb reopened it after its end. A server that searches hands out no open run and never finishes a sweep that has
one, so an open run that nobody trains must be ended or trained.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fer_sweep.records import TrialState
from fer_sweep.wandb_client.messages import ServerRun
from fer_sweep.wandb_client.runs import state_of


class Action(StrEnum):
    """What to do about one run; the value is what ``fersweep sync`` prints once it is done."""

    UPLOAD = "uploaded"
    """The server does not have the run."""
    COMPLETE = "completed"
    """The server has part of the run, or the wrong end."""
    NONE = "already there"
    WAIT = "still running"
    """An agent trains or uploads the run, or may do so."""
    TRAIN = "trained here"
    """The server takes the run to be running, and no agent trains it."""


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


def reconcile(
    local: Iterable[LocalTrial], remote: Iterable[ServerRun], *, silent: Collection[str] = ()
) -> Mapping[str, Action]:
    """Decide what to do about each trial's run.

    Args:
        local: The trials of this home.
        remote: The runs of their sweep on the server.
        silent: Ids of runs without a sign of life for a lease.

    Returns:
        By trial; and by run for each one that the server has proposed and this home has never started.
    """
    runs = {run.id: run for run in remote}
    actions = {trial.trial_id: _action(trial, runs.pop(trial.run_id, None), silent) for trial in local}
    # Its proposal was lost on its way, or with its agent; or an agent is about to start it.
    proposed = [run_id for run_id, run in runs.items() if run.state == "pending"]
    return actions | {run_id: Action.TRAIN if run_id in silent else Action.WAIT for run_id in proposed}


def _action(trial: LocalTrial, run: ServerRun | None, silent: Collection[str]) -> Action:
    is_open = run is not None and state_of(run).is_open
    if trial.in_use:
        return Action.COMPLETE if trial.state.has_ended and trial.is_settled and is_open else Action.WAIT
    if trial.server_resumes and not trial.state.has_ended:
        if not is_open:
            return Action.NONE
        return Action.TRAIN if trial.run_id in silent else Action.WAIT
    if run is None:
        return Action.UPLOAD
    state = trial.state if trial.state.has_ended else TrialState.PREEMPTED
    has_its_end = state in state_of(run).ends and run.summary.get("state") == state
    return Action.NONE if has_its_end and run.steps >= trial.lines else Action.COMPLETE


class SignsOfLife:
    """When each run last showed a sign of life, by the clock of this host: the server's clock may differ."""

    def __init__(self, lease_s: float, clock: Callable[[], float]) -> None:
        """Start without runs.

        Args:
            lease_s: Seconds without a sign of life after which a run is silent.
            clock: Unix time, seconds.
        """
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[tuple[str, float | None, int], float] = {}
        """By run, heartbeat and lines of history: when it was first seen so."""
        self._checked_at = float("-inf")

    def is_due(self) -> bool:
        """Whether the last check is at least a quarter of a lease old."""
        return self._clock() - self._checked_at >= self._lease_s / 4

    def silent(self, runs: Iterable[ServerRun]) -> Collection[str]:
        """Note the runs as the server has them now, and give the ids of those that have been silent for a lease."""
        now = self._checked_at = self._clock()
        self._seen = {
            sign: self._seen.get(sign, now) for sign in ((run.id, run.heartbeat_at, run.steps) for run in runs)
        }
        return [run_id for (run_id, _, _), since in self._seen.items() if now - since >= self._lease_s]
