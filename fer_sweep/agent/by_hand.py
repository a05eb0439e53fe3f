"""``fersweep train``: the same training as in a slot, in this process, with its own W&B run."""

import os
import re
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import InputError
from fer_sweep.files import home, is_locked, trial_folder
from fer_sweep.host_processes import PREEMPT
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.wandb_client.account import place
from fer_sweep.wandb_client.tracking import RunLabels, Tracker
from fer_sweep.worker.slots import one_slot
from fer_sweep.worker.trial_process import EpochReport, FolderInUse, StopFlag, TrialJob, TrialMessage, train_here

STOCK_AGENT = ("WANDB_SWEEP_ID", "WANDB_RUN_ID")
"""Environment variables of a run that the stock ``wandb agent`` starts."""


def default_folder(config: TrialConfig) -> Path:
    """A folder for ``fersweep train``: under a stock ``wandb agent`` that of its run, otherwise a new one."""
    sweep, run = (os.environ.get(name, "") for name in STOCK_AGENT)
    if all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", part) for part in (sweep, run)):
        return trial_folder(sweep, run)
    return home() / "trials" / f"{config.model}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def train_by_hand(
    config: TrialConfig,
    folder: Path,
    *,
    device: str,
    threads: int | None = None,
    keep_model: bool = False,
    say: Callable[[str], None],
) -> TrialOutcome:
    """Train here; Ctrl-C, SIGTERM and SIGUSR2 write a checkpoint and stop at the next step, a second Ctrl-C at once.

    Under a stock ``wandb agent`` SIGTERM is how the server stops a run early: the trial then ends with the result it
    has, since three failures would end that agent. SIGUSR2 (on Windows Ctrl-Break) means preemption there as well.

    Args:
        config: What to train.
        folder: Its folder; training resumes from a checkpoint of the same configuration in it.
        device: ``auto``, ``cpu``, ``mps``, or a GPU's number or UUID.
        threads: CPU threads; None for all cores. A resumed trial is bit-identical only with as many as before.
        keep_model: Upload the best weights to W&B.
        say: Gets a line after every epoch.
    """
    slot = one_slot(device, threads)
    os.environ.update(slot.environment)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--folder {folder}: {error.strerror}", hint="give a folder that can be created") from error
    if is_locked(folder / ".lock"):  # before a W&B run is started: it would be the other process's
        raise FolderInUse(f"another process trains in {folder}", hint="terminate it first")
    flag = StopFlag()
    _obey_signals(flag)  # before wandb, which takes a second to start a run
    run = Tracker(keep_models=keep_model).start(_labels(config, folder), config.model_dump(mode="json"), folder=folder)

    def on_message(message: TrialMessage) -> None:
        if run.stop_asked:
            flag.prune()
        if isinstance(message, EpochReport):
            run.log(message.metrics)
            metrics = message.metrics
            say(
                f"epoch {message.epoch}/{config.epochs} train_loss {metrics['train_loss']:.3f} "
                f"val_acc {metrics['val_acc']:.1%} gap {100 * metrics['train_val_gap']:+.1f} "
                f"{metrics['images_per_second']:,.0f} images/s"
            )

    job = TrialJob(config, folder, device=slot.device, threads=threads or slot.threads)
    outcome = TrialOutcome(TrialState.FAILED, reason="an error ended the training")
    try:
        outcome = train_here(job, flag, on_message)
    finally:
        run.finish(outcome)
        if run.had_trouble:
            say("the run is incomplete on the W&B server; upload it later: wandb sync")
    return outcome


def _under_stock_agent() -> bool:
    return all(os.environ.get(name) for name in STOCK_AGENT)


def _labels(config: TrialConfig, folder: Path) -> RunLabels:
    under_agent = _under_stock_agent()
    entity, project = place(None, None)
    return RunLabels(
        name=f"{config.model}-{folder.name}" if under_agent else folder.name,
        group=os.environ["WANDB_SWEEP_ID"] if under_agent else "by-hand",
        entity=entity,
        project=project,
        tags=(config.model,),
        notes=f"fersweep train --config {shlex.quote(str(folder / 'config.json'))}",
    )


def _obey_signals(flag: StopFlag) -> None:
    def ctrl_c(number: int, frame: FrameType | None) -> None:
        if flag.reason is not None:
            os._exit(130)  # the second one: at once; the files are whole
        flag.preempt(number, frame)

    signal.signal(signal.SIGINT, ctrl_c)
    signal.signal(PREEMPT, flag.preempt)
    signal.signal(signal.SIGTERM, flag.prune if _under_stock_agent() else flag.preempt)
