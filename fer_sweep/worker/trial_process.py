"""The process of one trial, which knows neither search, tracking nor slot.

It gets a configuration, a folder and a pipe. It sends ``Beat``s, ``EpochReport``s and at its end a ``TrialOutcome``
through the pipe, receives a ``StopReason`` from it, and ends when its agent does, which closes the pipe.
"""

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import DeviceMissing, FersweepError, OtherData, StorageError, cannot_write
from fer_sweep.host_processes import STOP_SIGNALS, end_with_parent, let_signals_through
from fer_sweep.records import Cause, StopReason, TrialOutcome, TrialState
from fer_sweep.worker.resources import be_killed_first, keep_freed_memory, limit_memory, send_output_to

PRELOAD = "fer_sweep.training.preload"
"""The module that a forkserver or a spare imports beforehand, so that a trial starts with torch imported."""

_LONGEST_REASON = 2000
_ONEDNN_OOM = ("could not create a primitive", "could not execute a primitive")
"""oneDNN's only messages if there is no memory for a convolution's generated code or scratch space."""
_METAL_OOM = ("Insufficient Memory (", "Invalid buffer size:")
"""Apple's GPU: of a command that memory ran out for, and torch's of a tensor beyond the largest buffer."""
_OOM = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "ALLOC_FAILED"),
    *_ONEDNN_OOM,
    *_METAL_OOM,
)
_DEVICE = (
    *("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "NCCL error", "No CUDA GPUs are available"),
    "kIOGPUCommandBufferCallbackError",  # Apple's GPU
)
_OWN_FAULT = "device-side assert"
"""A CUDA error that the trial's own numbers cause, on any GPU."""
_BEAT_S = 1.0
_LOCK_WAIT_S = 10.0
"""How long a killed attempt may take to end before its successor gives up."""


class FolderInUse(FersweepError):
    """Another process trains in the folder, most likely a former attempt that has not ended yet."""


@dataclass(frozen=True)
class TrialJob:
    """Everything that a trial's process gets."""

    config: TrialConfig
    folder: Path
    device: str = "cpu"
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_share: float | None = None
    """The share of its device's memory that it may take, in (0, 1]; None for all of it."""
    micro_batch: int | None = None
    """Images at once, if memory does not hold a whole batch; None for whole batches."""
    checkpoints: Path | None = None
    """Folder of its checkpoints; None for its own folder."""
    fingerprint: str | None = None
    """Fingerprint that its data set must have; None for any."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch's metrics, sent when its history line and a checkpoint that was due are on disk."""

    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Beat:
    """Heartbeat, sent at the first step and then by a step or a part of an evaluation, at most once a second."""

    at: float
    """Time of the step, by the monotonic clock that all processes of a host share, in seconds."""
    steps: int = 0
    """Steps and parts of evaluations before it, in this process."""
    share: float = 0.0
    """Of the epoch's training steps that are done; 1 during the evaluation."""


TrialMessage = EpochReport | Beat | TrialOutcome


@dataclass
class StopFlag:
    """Set by a signal handler or the pipe, read by the training loop at every step."""

    reason: StopReason | None = None

    def preempt(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """A signal handler: checkpoint at the next step and stop."""
        self.reason = self.reason or StopReason.PREEMPTED

    def prune(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """A signal handler: end at the next step with the result so far."""
        self.reason = self.reason or StopReason.PRUNED


def run_trial(job: TrialJob, pipe: Connection) -> None:
    """Entry point of the trial's process; returns when the trial has ended and its outcome is sent."""
    flag = StopFlag()

    def training() -> TrialOutcome:
        _settle(job, flag)
        threading.Thread(target=_listen, args=(pipe, flag), daemon=True, name="stop-listener").start()
        return train_here(job, flag, pipe.send)

    pipe.send(_outcome(training))
    pipe.close()


def train_here(job: TrialJob, flag: StopFlag, send: Callable[[TrialMessage], None]) -> TrialOutcome:
    """Train in this process; ``send`` gets an EpochReport after every epoch, and Beats in between.

    Raises:
        FolderInUse: Another process trains in the folder.
        DeviceMissing: torch cannot use the GPU.
    """
    last_beat, steps, share = float("-inf"), 0, 0.0

    def on_step(done: float) -> None:
        nonlocal share
        share = done

    def stop() -> StopReason | None:
        nonlocal last_beat, steps
        now = time.monotonic()
        if now - last_beat >= _BEAT_S:
            last_beat = now
            send(Beat(now, steps, share))
        steps += 1
        return flag.reason

    with _exclusive(job.folder):
        importlib.import_module(PRELOAD)  # it sets what torch reads at its import
        import torch  # only here: the agent imports this module too, without torch

        from fer_sweep.training.devices import check_device, limit_gpu_memory
        from fer_sweep.training.loop import train

        if torch.get_num_threads() != job.threads:
            torch.set_num_threads(job.threads)
        check_device(torch.device(job.device))
        keep_freed_memory()
        if job.memory_share is not None and job.device == "cpu":
            limit_memory(job.memory_share)
        elif job.memory_share is not None:
            limit_gpu_memory(torch.device(job.device), job.memory_share)
        return train(
            job.config,
            job.folder,
            device=job.device,
            checkpoints=job.checkpoints,
            fingerprint=job.fingerprint,
            micro_batch=job.micro_batch,
            on_epoch=lambda metrics: send(EpochReport(int(metrics["epoch"]), dict(metrics))),
            on_step=on_step,
            stop=stop,
        )


def open_context(device: str) -> None:
    """Have the driver of a GPU set itself up for this process, which takes half a second with CUDA."""
    import torch

    with contextlib.suppress(RuntimeError):  # the trial fails by it, with a reason
        torch.zeros(1, device=device)


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of the trial's folder; the kernel releases it with the process, however that ends."""
    lock = FileLock(folder / ".lock", timeout=_LOCK_WAIT_S)
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUse(f"another process trains in {folder}", hint="terminate it first") from None
    except OSError as error:
        raise cannot_write(folder, error) from error
    with lock:
        yield


def _settle(job: TrialJob, flag: StopFlag) -> None:
    end_with_parent()  # outside Linux the closed pipe ends it, a moment later
    be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the agent decides
    for number in STOP_SIGNALS:
        signal.signal(number, flag.preempt)
    let_signals_through()  # there are handlers now
    os.environ.update(job.environment)
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        send_output_to(job.folder / "trial.log")
    except OSError as error:
        raise cannot_write(job.folder, error) from error
    faulthandler.enable()  # a crash, or the SIGABRT to one that hangs, leaves a stack trace in trial.log


def _outcome(training: Callable[[], TrialOutcome]) -> TrialOutcome:
    try:
        return training()
    except (StorageError, FolderInUse, OtherData, DeviceMissing) as error:
        # Not the configuration's fault: it can be resumed once there is room, the lock is free, the data is back or
        # torch has the GPU.
        return TrialOutcome(TrialState.PREEMPTED, reason=_with_hint(error))
    except FersweepError as error:
        _print_to_log(f"error: {_with_hint(error)}\n")
        return TrialOutcome(TrialState.FAILED, reason=_with_hint(error))
    except Exception as error:
        _print_to_log(traceback.format_exc())
        reason = _described(error)[:_LONGEST_REASON]
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason += f" (in {where.name}, {Path(where.filename).name} line {where.lineno}; the traceback is in trial.log)"
        return TrialOutcome(TrialState.FAILED, reason=reason, cause=cause_of(error))


def cause_of(error: Exception) -> Cause | None:
    """The cause of an error in training, if that is memory or the GPU and not the configuration.

    It is classified by message: the libraries share no exception classes.
    """
    message = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or mentions_memory(message):
        return Cause.OUT_OF_MEMORY
    if _OWN_FAULT in message:
        return None
    return Cause.DEVICE if any(word in message for word in _DEVICE) else None


def _described(error: Exception) -> str:
    """An error's type and message, explained where the message is obscure."""
    message = f"{type(error).__name__}: {error}"
    return f"out of memory, most likely: {message}" if any(word in message for word in _ONEDNN_OOM) else message


def mentions_memory(text: str) -> bool:
    """Whether a library's last message says that memory ran out."""
    return any(word.lower() in text.lower() for word in _OOM)


def _print_to_log(text: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the outcome still goes through the pipe
        sys.stderr.write(text)
        sys.stderr.flush()


def _with_hint(error: FersweepError) -> str:
    return (f"{error} ({error.hint})" if error.hint else str(error))[:_LONGEST_REASON]


def _listen(pipe: Connection, flag: StopFlag) -> None:
    while True:
        try:
            flag.reason = pipe.recv()
        except (EOFError, OSError):
            # The agent has ended. The files are whole, and the next agent resumes from them; ending at once keeps
            # two processes from training one trial.
            os._exit(1)
