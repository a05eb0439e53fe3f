"""The process of one trial, which knows neither search, tracking nor slot.

It gets a configuration, a folder and a pipe. It sends ``EpochReport``s and at its end a ``TrialOutcome`` through the
pipe, receives a ``StopReason`` from it, and ends when its agent does, which closes the pipe.
"""

import contextlib
import faulthandler
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
from fer_sweep.errors import FersweepError, OtherData, StorageError, cannot_write
from fer_sweep.host_processes import end_with_parent
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.worker.causes import cause_of, described
from fer_sweep.worker.resources import be_killed_first, keep_freed_memory, limit_memory, send_output_to

PRELOAD = "fer_sweep.training.preload"
"""The module that the forkserver imports once, so that forks start with torch imported."""

HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Signals that a fork starts with blocked, until it has handlers for them."""

PROBE_STEPS, PROBE_S = 4, 1.5
"""A probe skips so many steps (on a GPU the fourth is captured as a graph), then times as many at least, for so many
seconds at least."""

_LONGEST_REASON = 2000
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
class FirstStep:
    """The first step begins: model and data are loaded."""


@dataclass(frozen=True)
class Beat:
    """Heartbeat, sent by a step or a part of an evaluation, at most once a second."""

    at: float
    """Time of the step, by the monotonic clock that all processes of a host share, in seconds."""


TrialMessage = FirstStep | EpochReport | Beat | TrialOutcome


@dataclass(frozen=True)
class ProbeReady:
    """A probe has done its first steps and waits for any message to start timing."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured."""

    images_per_second: float


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


def run_in_fork(job: TrialJob, pipe: Connection) -> None:
    """Entry point of the forked process; returns when the trial has ended and its outcome is sent."""
    flag = StopFlag()

    def training() -> TrialOutcome:
        _settle(job, flag)
        threading.Thread(target=_listen, args=(pipe, flag), daemon=True, name="stop-listener").start()
        return train_here(job, flag, pipe.send)

    pipe.send(_outcome(training))
    pipe.close()


def probe_in_fork(job: TrialJob, pipe: Connection) -> None:
    """Entry point of a fork that measures throughput, until it is killed.

    It sends ``ProbeReady``, waits for any message, and sends ``ProbeResult``; a training that ends before that sends
    its outcome instead.
    """
    steps = _timed_steps(job, pipe)

    def training() -> TrialOutcome:
        _settle(job, StopFlag())
        return _train(job, lambda: next(steps), lambda metrics: None)

    pipe.send(_outcome(training))


def _timed_steps(job: TrialJob, pipe: Connection) -> Iterator[None]:
    """Advanced before every step; blocks when enough steps were timed."""
    import torch

    def clock() -> float:
        if job.device != "cpu":
            torch.cuda.synchronize()  # not between steps, where training does not wait for the device either
        return time.perf_counter()

    for _ in range(PROBE_STEPS):  # the first ones choose kernels and fill caches
        yield
    pipe.send(ProbeReady())
    pipe.recv()
    began, steps = clock(), 0
    while steps < PROBE_STEPS or time.perf_counter() - began < PROBE_S:
        yield
        steps += 1
    pipe.send(ProbeResult(steps * job.config.batch_size / (clock() - began)))
    pipe.poll(None)  # keeps the memory until the agent has measured it and kills this process
    os._exit(1)  # the agent is gone


def train_here(job: TrialJob, flag: StopFlag, send: Callable[[TrialMessage], None]) -> TrialOutcome:
    """Train in this process.

    Args:
        job: What to train, where and on what.
        flag: Read at every step.
        send: Called with FirstStep, with an EpochReport after every epoch, and with Beats in between.

    Raises:
        FolderInUse: Another process trains in the folder.
        FersweepError: As ``training.loop.train`` does.
    """
    last_beat: float | None = None

    def stop() -> StopReason | None:
        nonlocal last_beat
        now = time.monotonic()
        if last_beat is None:
            send(FirstStep())
        if last_beat is None or now - last_beat >= _BEAT_S:
            last_beat = now
            send(Beat(now))
        return flag.reason

    return _train(job, stop, lambda metrics: send(EpochReport(int(metrics["epoch"]), dict(metrics))))


def _train(
    job: TrialJob, stop: Callable[[], StopReason | None], on_epoch: Callable[[Mapping[str, float]], None]
) -> TrialOutcome:
    with _exclusive(job.folder):
        import torch  # only here: the agent imports this module too, without torch

        from fer_sweep.training.loop import train

        if torch.get_num_threads() != job.threads:
            torch.set_num_threads(job.threads)
        keep_freed_memory()
        if job.memory_share is not None and job.device == "cpu":
            limit_memory(job.memory_share)
        elif job.memory_share is not None:
            torch.cuda.set_per_process_memory_fraction(job.memory_share, torch.device(job.device))
        return train(
            job.config,
            job.folder,
            device=job.device,
            checkpoints=job.checkpoints,
            fingerprint=job.fingerprint,
            micro_batch=job.micro_batch,
            on_epoch=on_epoch,
            stop=stop,
        )


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of the trial's folder; the kernel releases it with the process, however that ends."""
    lock = FileLock(folder / ".lock", timeout=_LOCK_WAIT_S)
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUse(f"another process trains in {folder}", hint="end it first") from None
    except OSError as error:
        raise cannot_write(folder, error) from error
    with lock:
        yield


def _settle(job: TrialJob, flag: StopFlag) -> None:
    end_with_parent(signal.SIGKILL)  # outside Linux the closed pipe ends it, a moment later
    be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the agent decides
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, flag.preempt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
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
    except (StorageError, FolderInUse, OtherData) as error:
        # Not the configuration's fault: it can be resumed once there is room, the lock is free or the data is back.
        return TrialOutcome(TrialState.PREEMPTED, reason=_with_hint(error))
    except FersweepError as error:
        _print_to_log(f"error: {_with_hint(error)}\n")
        return TrialOutcome(TrialState.FAILED, reason=_with_hint(error))
    except Exception as error:
        _print_to_log(traceback.format_exc())
        reason = described(error)[:_LONGEST_REASON]
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason += f" (in {where.name}, {Path(where.filename).name} line {where.lineno}; the traceback is in trial.log)"
        return TrialOutcome(TrialState.FAILED, reason=reason, cause=cause_of(error))


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
