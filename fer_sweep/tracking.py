"""One W&B run a trial: started, logged to and finished in the agent's process.

Whether runs go online, stay offline or are not made at all is decided by wandb's own switches. A run is a copy:
``history.jsonl`` and ``sweeps.db`` are the truth, so trouble with W&B is said once and never stops a trial.
"""

import logging
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from fer_sweep.records import TrialOutcome, TrialState

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled"]

log = logging.getLogger(__name__)

_DEFAULT_SERVER = "https://api.wandb.ai"
_EXIT_CODES = {TrialState.COMPLETE: 0, TrialState.PRUNED: 0}  # any other code shows as failed in the W&B UI


def tracking_mode() -> Mode:
    """Where runs go: ``WANDB_MODE`` if set, else online with a login (key or netrc), else offline.

    Source: https://docs.wandb.ai/guides/track/environment-variables
    """
    given = os.environ.get("WANDB_MODE", "").lower()
    if given in ("disabled", "dryrun", "offline", "online", "run", "shared"):
        return {"dryrun": "offline", "run": "online", "shared": "online"}.get(given, given)  # type: ignore[return-value]
    return "online" if _has_login() else "offline"


@dataclass(frozen=True)
class RunLabels:
    """What names a run and places it in the W&B UI."""

    name: str
    group: str
    sweep_id: str | None = None
    job_type: str = "trial"
    project: str | None = None
    entity: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None


@dataclass
class TrackedRun:
    """A started run; with tracking disabled or out of order, one that takes everything and does nothing."""

    run: "wandb.Run | None"
    _warned: bool = field(default=False, init=False)

    @property
    def folder(self) -> Path | None:
        """Where wandb keeps the run's files."""
        return Path(self.run.dir).parent if self.run is not None else None

    def log(self, metrics: Mapping[str, float]) -> None:
        """Log one epoch; its ``epoch`` is the x axis of every plot."""
        self._guarded("log an epoch", lambda run: run.log(dict(metrics)))

    def finish(self, outcome: TrialOutcome) -> None:
        """Write the summary and close the run, as failed where the trial failed or goes on later."""

        def close(run: "wandb.Run") -> None:
            if outcome.result is not None:
                run.summary.update(outcome.result.model_dump(mode="json"))
            run.summary.update({"state": str(outcome.state)} | ({"reason": outcome.reason} if outcome.reason else {}))
            run.finish(exit_code=_EXIT_CODES.get(outcome.state, 1))

        self._guarded("finish the run", close)
        self.run = None

    def _guarded(self, what: str, act: Any) -> None:
        if self.run is None:
            return
        try:
            act(self.run)
        except Exception as error:  # wandb raises its own, its service's and the OS's errors alike
            if not self._warned:
                log.warning("W&B could not %s (%s); the trial goes on, its history is on disk", what, error)
            self._warned = True


def start_run(labels: RunLabels, config: Mapping[str, Any], *, run_id: str | None = None) -> TrackedRun:
    """Start the W&B run of one trial, beside any others open in this process.

    Args:
        labels: Name, group and the rest; project and entity fall back to wandb's environment variables.
        config: The whole TrialConfig as plain values, nested.
        run_id: The run's id; None lets wandb take it from its environment (a stock ``wandb agent``) or draw one.

    Returns:
        A run that is never None: where wandb cannot start one, the reason is logged and nothing is tracked.
    """
    mode = tracking_mode()
    if mode == "disabled":
        return TrackedRun(None)
    import wandb  # 1 s of import that an untracked trial need not pay

    settings = wandb.Settings(
        mode=mode,
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_save_requirements=False,  # listing the installed packages is most of a lean init's time
        **({"sweep_id": labels.sweep_id} if labels.sweep_id else {}),
    )
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or labels.project or "fersweep",
            entity=os.environ.get("WANDB_ENTITY") or labels.entity,
            id=run_id,
            name=labels.name,
            group=labels.group,
            job_type=labels.job_type,
            tags=list(labels.tags),
            notes=labels.notes,
            config=dict(config),
            reinit="create_new",
            resume="allow" if run_id and mode == "online" else None,
            settings=settings,
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
    except Exception as error:  # wandb raises its own, its service's and the OS's errors alike
        log.warning("W&B could not start a run (%s); the trial goes on, its history is on disk", error)
        return TrackedRun(None)
    return TrackedRun(run)


def _has_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or _DEFAULT_SERVER).hostname or ""
    try:
        found = netrc.netrc(os.environ.get("NETRC") or None).authenticators(server)
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])
