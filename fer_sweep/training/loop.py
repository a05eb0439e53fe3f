"""The training of one trial, from configuration to result, or to a checkpoint from which it resumes.

Read ``train`` from top to bottom. On a CPU the same configuration with the same number of threads gives the same
bits, however often the training was preempted or killed: what an epoch draws is a pure function of seed and epoch,
and everything else that a step depends on is in the checkpoint.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer_sweep.config.trial import TrialConfig
from fer_sweep.data import augment
from fer_sweep.data.mixing import Mixing, draw_mixing
from fer_sweep.errors import StorageError
from fer_sweep.records import StopReason, TrialOutcome, TrialResult, TrialState, Verdict
from fer_sweep.training.evaluation import Stopped, accuracy, confusion_matrix, evaluate
from fer_sweep.training.faces import batches
from fer_sweep.training.history import read_history
from fer_sweep.training.optimizer import learning_rate
from fer_sweep.training.step import Batch, Steps
from fer_sweep.training.trial import HISTORY, Best, Trial, claim_folder

_log = logging.getLogger(__name__)

CHECK_EVERY = 64
"""Steps between looks at whether the loss is still finite: each look waits for the device."""


def train(
    config: TrialConfig,
    folder: Path,
    *,
    device: str = "cpu",
    checkpoints: Path | None = None,
    fingerprint: str | None = None,
    micro_batch: int | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] = lambda metrics: None,
    on_step: Callable[[float], None] = lambda share: None,
    stop: Callable[[], StopReason | None] = lambda: None,
) -> TrialOutcome:
    """Train one configuration, or resume it from the checkpoint in its folder.

    Args:
        config: What to train.
        folder: The trial's own folder; takes config.json, history.jsonl, last.ckpt and previous.ckpt while it
            trains, best.safetensors and result.json.
        device: As torch names it: ``cpu``, ``cuda:0``, ``mps``.
        checkpoints: Where last.ckpt and previous.ckpt go in place of the folder: one of the trial's own, too.
        fingerprint: Of the data set; None accepts any.
        micro_batch: Images that go through the model at once, where memory does not hold a whole batch. Steps, their
            images and their learning rates stay the same; BatchNorm and dropout see the parts.
        on_epoch: Called with ``records.EPOCH_METRICS`` after each epoch. When a trial is resumed, the
            epochs it already has are sent again first.
        on_step: Called before every step with the share of the epoch's steps that are done.
        stop: Asked before every step, and within an evaluation. PREEMPTED and PAUSED save a checkpoint and return;
            PRUNED ends the trial with the result of its best epoch.

    Returns:
        Complete, pruned, paused (both with a result if an epoch was finished) or preempted. A loss that is not finite
        completes the trial with verdict ``diverged`` and the best epoch before it, or best_val_acc 0.0 if there
        was none, so that a search learns how bad the configuration is. A folder whose training is over gives
        its result again.

    Raises:
        CheckpointError: The folder belongs to another configuration or to other data.
        OtherData: The data set has another fingerprint.
        DataError, ConfigError: The data set is missing or too small for the configuration.
        WeightsUnavailable: Pretrained weights are asked for and cannot be had.
        StorageError: The folder cannot be written, such as on a full disk.
    """
    if result := claim_folder(config, folder):
        try:
            rows = read_history(folder / HISTORY)
        except StorageError as error:
            _log.warning("%s; its result stands", error)  # what is finished is not lost over it
            rows = []
        for row in rows:
            on_epoch(row)
        return _outcome(config, result)

    where = torch.device(device)
    trial = Trial(config, folder, where, checkpoints=checkpoints, fingerprint=fingerprint, micro_batch=micro_batch)
    for row in trial.history.rows:
        on_epoch(row)
    parts = list(batches(len(trial.faces.train), config.batch_size))
    total_steps = config.epochs * len(parts)
    steps = Steps(trial)

    while (progress := trial.progress).epochs_done < config.epochs:
        epoch = progress.epochs_done + 1
        began = time.perf_counter()
        plan = _plan_epoch(trial, epoch, len(parts))
        trial.model.train()
        while progress.step < len(parts):
            on_step(progress.step / len(parts))
            if reason := stop():
                progress.epoch_seconds += time.perf_counter() - began
                return _stopped(trial, reason, f"in epoch {epoch} of {config.epochs}")
            step = progress.epochs_done * len(parts) + progress.step
            steps.take(plan.batch(parts[progress.step], progress.step), learning_rate(config, step, total_steps))
            if trial.average:
                trial.average.update(step)
            if progress.step % CHECK_EVERY == 0 and not math.isfinite(progress.loss_sum):
                return _outcome(config, trial.finish(diverged=True), f"the loss was not finite in epoch {epoch}")
        on_step(1.0)
        train_loss = float(progress.loss_sum) / progress.images  # waits for the device, so the time below is whole
        progress.epoch_seconds += time.perf_counter() - began

        lr = learning_rate(config, epoch * len(parts) - 1, total_steps)  # the last step's
        try:
            row, best = _measure(trial, epoch, train_loss, lr, stop)
        except Stopped as stopped:
            return _stopped(trial, stopped.reason, f"at the end of epoch {epoch} of {config.epochs}")
        if not (math.isfinite(train_loss) and math.isfinite(row["val_loss"])):
            return _outcome(config, trial.finish(diverged=True), f"the loss was not finite in epoch {epoch}")
        if best:
            trial.keep_best(best)
        progress.epochs_done, progress.step = epoch, 0
        progress.images, progress.epoch_seconds = 0, 0.0
        progress.loss_sum.zero_()
        trial.history.append(row)
        if epoch < config.epochs and trial.checkpoints.due():
            trial.save()
        on_epoch(row)

    return _outcome(config, trial.finish())


@dataclass(frozen=True)
class _Plan:
    """What one epoch draws, on the device."""

    order: Tensor
    """(n,): the data set's positions of the training images, shuffled."""
    augmentation: augment.Augmentation
    """Of the images in that order."""
    mixing: Mixing | None
    """Of each of its batches."""

    def batch(self, part: slice, step: int) -> Batch:
        """What the epoch's step trains on: this part of its images."""
        return Batch(self.order[part], self.augmentation[part], self.mixing[step] if self.mixing else None)


def _plan_epoch(trial: Trial, epoch: int, steps: int) -> _Plan:
    # Seeded by seed and epoch alone, so an epoch that is resumed in the middle needs nothing of its beginning.
    config = trial.config
    rng = np.random.default_rng([config.seed, epoch])
    positions = trial.faces.train
    order = torch.from_numpy(rng.permutation(len(positions))).to(trial.device)
    augmentation = augment.draw(config.augment, len(positions), trial.faces.spec, rng).to(trial.device)
    mixing = draw_mixing(config.augment, steps, trial.faces.spec, rng, share=epoch / config.epochs)
    return _Plan(positions[order], augmentation, mixing and mixing.each(lambda part: part.to(trial.device)))


def _measure(
    trial: Trial, epoch: int, train_loss: float, lr: float, stop: Callable[[], StopReason | None]
) -> tuple[dict[str, float], Best | None]:
    """The epoch's metrics, and what to keep of it if it is the best so far."""
    faces, samples, progress = trial.faces, trial.samples, trial.progress

    def evaluated(positions: Tensor) -> tuple[float, npt.NDArray[np.int64]]:
        return evaluate(trial.evaluated, faces, positions, trial.precision, at_once=trial.micro_batch, stop=stop)

    val_loss, val_predictions = evaluated(faces.val)
    _, gap_predictions = evaluated(faces.gap)
    val_labels, gap_labels = faces.labels[faces.val].cpu().numpy(), faces.labels[faces.gap].cpu().numpy()
    val_acc, train_acc = accuracy(val_labels, val_predictions), accuracy(gap_labels, gap_predictions)
    best = None
    if progress.best is None or val_acc > progress.best.val_acc:
        clean = samples.clean
        best = Best(
            epoch=epoch,
            val_acc=val_acc,
            train_acc=train_acc,
            val_acc_clean=accuracy(val_labels[clean], val_predictions[clean]),
            confusion=confusion_matrix(val_labels, val_predictions, len(faces.spec.classes)),
        )
    row = {
        "epoch": epoch,
        "train_loss": train_loss,
        "train_acc": train_acc,
        "val_loss": val_loss,
        "val_acc": val_acc,
        "train_val_gap": train_acc - val_acc,
        "best_val_acc": max(val_acc, progress.best.val_acc if progress.best else 0.0),
        "lr": lr,
        "images_per_second": progress.images / progress.epoch_seconds,
    }
    return row, best


def _stopped(trial: Trial, reason: StopReason, where: str) -> TrialOutcome:
    state, text = TrialState(reason), f"{reason} {where}"
    if reason is StopReason.PRUNED:
        return TrialOutcome(state, result=trial.finish() if trial.progress.best else None, reason=text)
    trial.save()
    if reason is StopReason.PREEMPTED:
        return TrialOutcome(state, reason=text)
    trial.checkpoints.keep_newest()
    # The result so far is the trial's last one if the search never resumes it.
    return TrialOutcome(state, result=trial.result() if trial.progress.best else None, reason=text)


def _outcome(config: TrialConfig, result: TrialResult, reason: str | None = None) -> TrialOutcome:
    diverged = result.verdict is Verdict.DIVERGED
    pruned = result.epochs < config.epochs and not diverged
    return TrialOutcome(TrialState.PRUNED if pruned else TrialState.COMPLETE, result=result, reason=reason)
