"""One W&B run a trial: started, logged to and finished in the agent's process.

Whether runs go online, stay offline or are not made at all is decided by wandb's own switches (``account``). A run is a
copy: ``history.jsonl`` and ``sweeps.db`` are the truth, so trouble with W&B is said once and never stops a trial, and
``fersweep sync`` makes whole what did not get through.
"""

import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_sweep.records import TrialOutcome, TrialResult, TrialState
from fer_sweep.wandb_client import service as wandb_service
from fer_sweep.wandb_client.account import Mode, load_wandb, quiet_wandb, tracking_mode
from fer_sweep.wandb_client.run_labels import RunLabels
from fer_sweep.wandb_client.service import TakesTooLong, in_time

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

_hangs = threading.Event()
"""wandb does not answer any more in this process, and is asked nothing. Version 0.31 waits for itself for ever if its
service dies while it starts."""

INIT_S = 10.0
"""A server that has not taken a new run by then is out of reach for now."""
FINISH_S = 10.0
"""A run that has not gone up by then is left behind, to be brought up later."""
FINISH_IN_TROUBLE_S = 1.0
"""The same once a run has been left behind: the others would only wait for the same server."""
BACK_ONLINE_S = 60.0
"""After such trouble no new run is sent to the server for so long: each try may cost the agent INIT_S."""
HANGS_S = 60.0
"""A wandb that has not answered by then, whatever it was asked, never will: this is longer than all its own limits."""
TRANSMIT_S = 5.0
"""Metrics go up this often, in whole seconds; wandb's own 15 s would let a server stop a trial that much later."""

_SERVICE_IS_GONE = ("MailboxClosedError", "ServiceDiedError", "WandbServiceConnectionError", "HandleAbandonedError")
"""What wandb raises once its service has been killed."""
_EXIT_CODES = {TrialState.COMPLETE: 0, TrialState.PRUNED: 0}  # any other code shows as failed in the W&B UI


@dataclass
class TrackedRun:
    """A started run; with tracking disabled or out of order, one that takes everything and does nothing."""

    run: "wandb.Run | None"
    model: Path | None = None
    """The weights to keep as an artifact when the trial ends well."""
    patience: Callable[[], float] = lambda: FINISH_S
    """Seconds to wait for the run to go up at its end."""
    on_end: Callable[[bool], None] = lambda whole: None
    """Told at the end whether all of the run is where it should be."""
    first_epoch: int = 0
    """Epochs before this one are on the server already."""
    had_trouble: bool = False
    """Whether something of the run is not where it should be."""
    _stop_asked: bool = field(default=False, init=False)

    @property
    def stop_asked(self) -> bool:
        """Whether somebody has pressed stop on the run's page."""
        return self._stop_asked

    def ask_to_stop(self) -> None:
        """What wandb calls, in a thread of its own, when the run's stop button is pressed."""
        self._stop_asked = True

    def log(self, metrics: Mapping[str, float]) -> None:
        """Log one epoch, which is also its step: said again after a resumption, it goes nowhere."""
        epoch = int(metrics["epoch"])
        if epoch < self.first_epoch:
            return
        self.first_epoch = epoch + 1
        self._guarded("log an epoch", lambda run: run.log(dict(metrics), step=epoch, commit=True))

    def mark_preempting(self) -> None:
        """Say that the run is about to be taken off its machine, so that the server hands it out again."""
        self._guarded("mark the run as preempting", lambda run: run.mark_preempting())

    def abandon(self) -> None:
        """Close the run of a trial that another agent has taken over: it is that one's now."""
        self._guarded("close the run", lambda run: in_time(lambda: run.finish(exit_code=1), self.patience()))
        if self.run is not None:
            # That agent's end may have come before this one, and is then to be said once more.
            self.on_end(not self.had_trouble)
        self.run = None

    def finish(self, outcome: TrialOutcome) -> None:
        """Write the summary and close the run, as failed where the trial failed or goes on later."""

        def close(run: "wandb.Run") -> None:
            if outcome.state is TrialState.PREEMPTED:
                run.mark_preempting()
            if outcome.result is not None:
                run.summary.update(outcome.result.model_dump(mode="json"))
                self._log_confusion_matrix(run, outcome.result)
                self._keep_model(run, outcome)
            run.summary.update({"state": str(outcome.state)} | ({"reason": outcome.reason} if outcome.reason else {}))
            run.finish(exit_code=_EXIT_CODES.get(outcome.state, 1))

        self._guarded("finish the run", lambda run: in_time(lambda: close(run), self.patience()))
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

    def _keep_model(self, run: "wandb.Run", outcome: TrialOutcome) -> None:
        if self.model is None or outcome.state is not TrialState.COMPLETE or not self.model.is_file():
            return
        assert outcome.result is not None
        wandb = load_wandb()
        metadata = {"best_val_acc": outcome.result.best_val_acc, "train_val_gap": outcome.result.train_val_gap}
        artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=metadata)
        artifact.add_file(str(self.model))
        run.log_artifact(artifact, aliases=["best"])

    def _guarded(self, what: str, act: Callable[["wandb.Run"], object]) -> None:
        run = self.run
        if run is None:
            return
        try:
            if wandb_service.is_paused():  # it may take in some words more, but what does not fit is waited for
                in_time(lambda: act(run), self.patience())
            else:
                act(run)
        except Exception as error:  # wandb raises its own, its service's and the OS's errors alike
            if not self.had_trouble:
                log.warning("W&B could not %s (%s); nothing of the trial is lost", what, error or type(error).__name__)
            self.had_trouble = True


class Tracker:
    """Starts the runs of one agent, and keeps them offline for a while when the server is out of reach."""

    def __init__(
        self,
        *,
        mode: Mode | None = None,
        keep_models: bool = False,
        obey_pages: bool = True,
        on_end: Callable[[str, bool], None] = lambda run_id, whole: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet.

        Args:
            mode: Where runs go; None leaves it to wandb's switches.
            keep_models: Upload the best weights of each complete trial as an artifact.
            obey_pages: Pass on the stop button of a run's page; False where the search hears of it by itself.
            on_end: Told of each run at its end, and whether all of it is where it should be.
            clock: Seconds, ever growing.
        """
        self._mode = mode
        self._keep_models = keep_models
        self._obey_pages = obey_pages
        self._told = on_end
        self._clock = clock
        self._in_trouble_until = float("-inf")

    def out_of_reach(self, *, for_good: bool = False) -> None:
        """The server does not answer: send it no new run for a while, or none at all."""
        self._in_trouble_until = (
            float("inf") if for_good else max(self._in_trouble_until, self._clock() + BACK_ONLINE_S)
        )

    def start(
        self,
        labels: RunLabels,
        config: Mapping[str, Any],
        *,
        run_id: str | None = None,
        folder: Path | None = None,
        started_at: float | None = None,
    ) -> TrackedRun:
        """Start the W&B run of one trial, beside any others open in this process.

        Args:
            labels: Name, group and the rest.
            config: The whole TrialConfig as plain values, nested.
            run_id: The run's id; None lets wandb take it from its environment (a stock ``wandb agent``) or draw one.
            folder: The trial's own, with its best weights.
            started_at: When the trial began, Unix time; now if not given.

        Returns:
            A run that is never None: where wandb cannot start one, the reason is logged and nothing is tracked.
        """
        mode = self._mode or tracking_mode()
        if mode == "disabled":
            return TrackedRun(None)
        if run_id is not None:
            # Left over from a stock agent, they would make every run of this process that agent's one.
            for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
                os.environ.pop(name, None)
        tracked = TrackedRun(None, patience=self._patience, on_end=lambda whole: self._on_end(run_id, whole))
        if _hangs.is_set():
            tracked.had_trouble = True
            return tracked
        if wandb_service.is_paused():
            log.warning("W&B's service process is paused; the trial goes on, and its run is left to `fersweep sync`")
            tracked.had_trouble = True
            self.out_of_reach()
            return tracked
        if self._keep_models and folder is not None:
            tracked.model = folder / "best.safetensors"
        if mode == "online" and self._is_in_trouble():
            mode, tracked.had_trouble = "offline", True
        # wandb keeps the id of a run that it could not start, so that only one without an id of its own can go offline.
        for attempt in dict.fromkeys((mode, "offline") if run_id is None else (mode,)):
            try:
                given = (tracked, attempt, labels.with_environment(), config, run_id, started_at)
                tracked.run = self._init_in_time(functools.partial(self._init, *given))
                if attempt == "offline":
                    tracked.patience = lambda: FINISH_S  # it waits for the disk, not for the server
                break
            except Exception as error:  # wandb raises its own, its service's and the OS's errors alike
                log.warning("W&B could not start a run (%s); the trial goes on, its history is on disk", error)
                tracked.had_trouble = True
                self.out_of_reach()
                if _hangs.is_set():
                    break
                if type(error).__name__ in _SERVICE_IS_GONE or isinstance(error, ConnectionError | BrokenPipeError):
                    close_wandb()  # no run of this process is tracked any more; the next one starts a new service
        return tracked

    def _init_in_time(self, init: "Callable[[], wandb.Run]") -> "wandb.Run":
        try:
            return in_time(init, HANGS_S)
        except TakesTooLong:
            if wandb_service.kill(wandb_service.process()):
                close_wandb()  # the next run starts another service
            else:
                _hangs.set()
            raise

    def _on_end(self, run_id: str | None, whole: bool) -> None:
        if not whole:
            self.out_of_reach()
        if run_id is not None:
            self._told(run_id, whole)

    def _is_in_trouble(self) -> bool:
        return self._clock() < self._in_trouble_until

    def _patience(self) -> float:
        return FINISH_IN_TROUBLE_S if self._is_in_trouble() else FINISH_S

    def _init(
        self,
        tracked: TrackedRun,
        mode: Mode | str,
        labels: RunLabels,
        config: Mapping[str, Any],
        run_id: str | None,
        started_at: float | None,
    ) -> "wandb.Run":
        wandb_ = quiet_wandb()
        settings = wandb_.Settings(
            mode=mode,
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            init_timeout=INIT_S,
            finish_timeout=FINISH_S,  # for wandb's own end of the process; ours is in_time
            # By default wandb sends this process SIGINT when one of its runs is stopped, which would drain the agent.
            stop_fn=tracked.ask_to_stop if self._obey_pages else _do_nothing,
            x_disable_stats=True,
            x_save_requirements=False,  # listing the installed packages is most of a lean init's time
            x_file_stream_transmit_interval=TRANSMIT_S,
            **({"sweep_id": labels.sweep_id} if labels.sweep_id else {}),
            **({"x_start_time": started_at} if started_at else {}),
        )
        run: wandb.Run = wandb_.init(
            project=labels.project,
            entity=labels.entity,
            id=run_id,
            name=labels.name,
            group=labels.group,
            job_type=labels.job_type,
            tags=list(labels.tags),
            notes=labels.notes,
            config=dict(config),
            reinit="create_new",
            resume="allow" if mode == "online" else None,
            settings=settings,
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        if run.resumed:
            tracked.first_epoch = run.starting_step
        return run


def close_wandb() -> None:
    """End wandb's service, if this process has one, with whatever run is still open."""
    if (wandb := sys.modules.get("wandb")) and not _hangs.is_set():
        service = wandb_service.process()
        if wandb_service.is_paused():
            wandb_service.kill(service)  # it would be waited for for ever, here and at the end of the process
        try:
            in_time(wandb.teardown, HANGS_S)
        except (
            Exception,
            SystemExit,
        ) as error:  # a service that was killed; at the end of the process wandb would show a traceback
            log.debug("wandb's service could not be ended: %s", error)
            if isinstance(error, TakesTooLong):
                wandb_service.kill(service)


def _do_nothing() -> None:
    pass
