"""The W&B run of each trial: started, logged to and finished in the agent's process.

wandb's own switches decide whether runs are online, offline or disabled (``account``). A run is a copy of
``history.jsonl`` and ``sweeps.db``, so an error of W&B is logged once and never stops a trial, and ``fersweep sync``
uploads what is missing.
"""

import functools
import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_sweep.files import WEIGHTS, trial_folder
from fer_sweep.records import TrialOutcome, TrialResult, TrialState
from fer_sweep.wandb_client import package
from fer_sweep.wandb_client.account import Mode, tracking_mode
from fer_sweep.wandb_client.package import close_wandb, in_time, load_wandb, quiet_wandb, start_in_time

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

INIT_S = 10.0
"""Timeout for starting a run online."""
FINISH_S = 10.0
"""Timeout for finishing a run; what was not sent by then is uploaded later."""
FINISH_IN_TROUBLE_S = 1.0
"""The same after another run's timeout: all of them wait for the same server."""
BACK_ONLINE_S = 60.0
"""After an error no run is started online for so long, because each try may block the agent for INIT_S."""
TRANSMIT_S = 5.0
"""Metrics are sent this often, in whole seconds; wandb's default of 15 s would delay a server's early stop."""
_SERVICE_IS_GONE = ("MailboxClosedError", "ServiceDiedError", "WandbServiceConnectionError", "HandleAbandonedError")
"""What wandb raises once its service has been killed."""
_EXIT_CODES = {TrialState.COMPLETE: 0, TrialState.PRUNED: 0, TrialState.PAUSED: 0}
"""Any other code shows as failed in the W&B UI."""


@dataclass(frozen=True)
class RunLabels:
    """Name and place of a run in the W&B UI; the fields are those of ``wandb.init``."""

    group: str
    entity: str | None = None
    """None for that of wandb's settings; project likewise."""
    project: str | None = None
    sweep_id: str | None = None
    """The sweep on the server that it belongs to."""
    name: str | None = None
    job_type: str = "trial"
    tags: tuple[str, ...] = ()
    notes: str | None = None

    def of_trial(self, trial_id: str, config: Mapping[str, Any]) -> "RunLabels":
        """The labels of a trial, given those that all trials of its sweep share; the group is its sweep's id."""
        return replace(
            self,
            name=f"{config['model']}-{trial_id}",
            tags=(str(config["model"]),),
            notes=f"fersweep train --config {shlex.quote(str(trial_folder(self.group, trial_id) / 'config.json'))}",
        )

    def with_environment(self) -> "RunLabels":
        """The labels with ``WANDB_RUN_GROUP``, ``WANDB_JOB_TYPE``, ``WANDB_TAGS`` and ``WANDB_NOTES`` applied."""
        tags = tuple(tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip())
        return replace(
            self,
            group=os.environ.get("WANDB_RUN_GROUP") or self.group,
            job_type=os.environ.get("WANDB_JOB_TYPE") or self.job_type,
            notes="\n".join(note for note in (os.environ.get("WANDB_NOTES"), self.notes) if note) or None,
            tags=tuple(dict.fromkeys((*self.tags, *tags))),
        )


@dataclass
class TrackedRun:
    """A started run; one that does nothing where tracking is disabled or wandb could not start it."""

    run: "wandb.Run | None"
    model: Path | None = None
    """The weights to upload as an artifact if the trial completes."""
    timeout_s: Callable[[], float] = lambda: FINISH_S
    """How long to wait for the upload at the run's end."""
    on_end: Callable[[bool], None] = lambda is_sent: None
    """Called at the end with whether wandb has sent all of the run."""
    first_epoch: int = 0
    """Epochs before this one are on the server already."""
    had_trouble: bool = False
    """Whether part of the run was not sent."""
    stop_asked: bool = False
    """Whether a user has pressed stop on the run's page."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Log one epoch, which is also the run's step; an epoch that a resumed trial repeats is not logged again."""
        epoch = int(metrics["epoch"])
        if epoch >= self.first_epoch:
            self.first_epoch = epoch + 1
            self._guarded("log an epoch", lambda run: run.log(dict(metrics), step=epoch, commit=True))

    def mark_preempting(self) -> None:
        """Mark the run as preempting, so that the server hands it out again."""
        self._guarded("mark the run as preempting", lambda run: run.mark_preempting())

    def abandon(self) -> None:
        """Close the run of a trial whose lease another agent has."""
        # That agent may have ended the run before this one fails it; ``on_end`` has it checked.
        self._close(lambda run: run.finish(exit_code=1))

    def finish(self, outcome: TrialOutcome) -> None:
        """Write the summary and close the run; as failed where the trial failed or was preempted."""

        def close(run: "wandb.Run") -> None:
            if outcome.state is TrialState.PREEMPTED:
                run.mark_preempting()
            if outcome.result is not None:
                run.summary.update(outcome.result.model_dump(mode="json"))
                if outcome.state.has_ended:  # its line would stand where a resumed trial logs its next epoch
                    self._log_confusion_matrix(run, outcome.result)
                if outcome.state is TrialState.COMPLETE and self.model is not None and self.model.is_file():
                    self._log_model(run, self.model, outcome.result)
            run.summary.update({"state": str(outcome.state)} | ({"reason": outcome.reason} if outcome.reason else {}))
            run.finish(exit_code=_EXIT_CODES.get(outcome.state, 1))

        self._close(close)

    def _close(self, close: Callable[["wandb.Run"], None]) -> None:
        self._guarded("finish the run", lambda run: in_time(lambda: close(run), self.timeout_s()))
        if self.run is not None or self.had_trouble:
            self.on_end(not self.had_trouble)
        self.run = None

    def _log_confusion_matrix(self, run: "wandb.Run", result: TrialResult) -> None:
        wandb = load_wandb()
        rows = [
            [result.classes[true], result.classes[predicted], count]
            for true, counts in enumerate(result.confusion_matrix)
            for predicted, count in enumerate(counts)
        ]
        columns = ["Actual", "Predicted", "nPredictions"]
        chart = wandb.plot_table(
            "wandb/confusion_matrix/v1",
            wandb.Table(columns=columns, data=rows),
            dict(zip(columns, columns, strict=True)),
            {"title": f"Confusion matrix at epoch {result.best_epoch}"},
        )
        run.log({"confusion_matrix": chart}, step=max(self.first_epoch, result.epochs + 1), commit=True)

    def _log_model(self, run: "wandb.Run", model: Path, result: TrialResult) -> None:
        metadata = {"best_val_acc": result.best_val_acc, "train_val_gap": result.train_val_gap}
        artifact = load_wandb().Artifact(f"model-{run.id}", type="model", metadata=metadata)
        artifact.add_file(str(model))
        run.log_artifact(artifact, aliases=["best"])

    def _guarded(self, what: str, act: Callable[["wandb.Run"], object]) -> None:
        if self.run is None:
            return
        try:
            act(self.run)
        except Exception as error:  # wandb raises its own, its service's and the OS's errors alike
            if not self.had_trouble:
                log.warning("W&B could not %s (%s); nothing of the trial is lost", what, error or type(error).__name__)
            self.had_trouble = True


class Tracker:
    """Starts the runs of one agent; offline for a while after the server did not answer."""

    def __init__(
        self,
        *,
        mode: Mode | None = None,
        keep_models: bool = False,
        obey_pages: bool = True,
        on_end: Callable[[str, bool], None] = lambda run_id, is_sent: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet.

        Args:
            mode: online, offline or disabled; None for wandb's own switches.
            keep_models: Upload the best weights of each complete trial as an artifact.
            obey_pages: Obey the stop button of a run's page; False where the search does so itself.
            on_end: Called at each run's end, with its id and whether wandb has sent all of it.
            clock: Monotonic, seconds.
        """
        self._mode = mode
        self._keep_models = keep_models
        self._obey_pages = obey_pages
        self._ended = on_end
        self._clock = clock
        self._offline_until = float("-inf")

    def go_offline(self, for_s: float = BACK_ONLINE_S) -> None:
        """Start runs offline for so long, because the server does not answer."""
        self._offline_until = max(self._offline_until, self._clock() + for_s)

    def start(
        self,
        labels: RunLabels,
        config: Mapping[str, Any],
        *,
        run_id: str | None = None,
        folder: Path | None = None,
        started_at: float | None = None,
    ) -> TrackedRun:
        """Start the W&B run of one trial; several may be open in this process.

        Args:
            labels: Its labels, without those of the environment.
            config: The whole TrialConfig as plain values, nested.
            run_id: The run's id; None lets wandb take it from its environment (a stock ``wandb agent``) or draw one.
            folder: The trial's folder, with its best weights.
            started_at: When the trial began, Unix time; now if not given.

        Returns:
            The run; if wandb cannot start it, the reason is logged and the run does nothing.
        """
        mode = self._mode or tracking_mode()
        if mode == "disabled":
            return TrackedRun(None)
        if run_id is not None:
            # Set by a stock agent, they would give every run of this process the same id.
            for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
                os.environ.pop(name, None)
        model = folder / WEIGHTS if self._keep_models and folder is not None else None
        tracked = TrackedRun(None, model, self._timeout_s, lambda is_sent: self._on_end(run_id, is_sent))
        if mode == "online" and self._is_offline():
            mode, tracked.had_trouble = "offline", True
        given = {**vars(labels.with_environment()), "id": run_id, "config": dict(config)}
        settings = {"sweep_id": given.pop("sweep_id"), "x_start_time": started_at}
        # wandb reserves the id of a run that it could not start, so only a run without a given id can be offline then.
        for attempt in dict.fromkeys((mode, "offline") if run_id is None else (mode,)):
            if package.hangs.is_set():
                tracked.had_trouble = True
                break
            try:
                whole = {**settings, "mode": attempt}
                tracked.run = start_in_time(functools.partial(self._init, tracked, given, whole))
                if attempt == "offline":
                    tracked.timeout_s = lambda: FINISH_S  # for the disk, not for the server
                break
            except Exception as error:  # wandb raises its own, its service's and the OS's errors alike
                log.warning("W&B could not start a run (%s); the trial continues, its history is on disk", error)
                tracked.had_trouble = True
                self.go_offline()
                if type(error).__name__ in _SERVICE_IS_GONE or isinstance(error, ConnectionError):
                    close_wandb()  # the next run starts a new service
        return tracked

    def _on_end(self, run_id: str | None, is_sent: bool) -> None:
        if not is_sent:
            self.go_offline()
        if run_id is not None:
            self._ended(run_id, is_sent)

    def _is_offline(self) -> bool:
        return self._clock() < self._offline_until

    def _timeout_s(self) -> float:
        return FINISH_IN_TROUBLE_S if self._is_offline() else FINISH_S

    def _init(self, tracked: TrackedRun, given: Mapping[str, Any], settings: Mapping[str, Any]) -> "wandb.Run":
        def on_stop() -> None:  # called in a thread of wandb's
            tracked.stop_asked = self._obey_pages

        wandb_ = quiet_wandb()
        chosen = wandb_.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            init_timeout=INIT_S,
            finish_timeout=FINISH_S,  # at the end of the process; before, in_time applies
            stop_fn=on_stop,  # by default wandb sends this process SIGINT, which would end the agent
            x_disable_stats=True,
            x_save_requirements=False,  # listing the installed packages takes most of the time of a lean init
            x_file_stream_transmit_interval=TRANSMIT_S,
            **{name: value for name, value in settings.items() if value is not None},
        )
        resume = "allow" if settings["mode"] == "online" else None
        run: wandb.Run = wandb_.init(**given, settings=chosen, resume=resume, reinit="create_new")
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        if run.resumed:
            tracked.first_epoch = run.starting_step
        return run
