"""What runs in the fork: one trial in a process of its own, which knows neither search, tracking nor slot.

It gets a configuration, a folder and a pipe. It sends ``EpochReport`` and at its end ``TrialOutcome`` through the
pipe, takes a ``StopReason`` from it, and dies with its agent: when the pipe breaks there is nobody left to train for.
"""

import contextlib
import ctypes
import fcntl
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

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import FersweepError, StorageError
from fer_sweep.records import StopReason, TrialOutcome, TrialState

PRELOAD = "fer_sweep.training.preload"
"""What the forkserver imports once, so that a fork starts with torch in place."""

HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Signals a fork starts with blocked, until it has handlers for them."""

PROBE_STEPS, PROBE_S = 3, 1.5
"""A probe times so many steps at least, and goes on for so many seconds."""

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""glibc's names for mallopt."""
_LOCK_WAIT_S = 10.0
_LONGEST_REASON = 2000


class FolderInUse(FersweepError):
    """Another process trains in the folder, most likely a predecessor that has not quite ended."""


@dataclass(frozen=True)
class TrialJob:
    """All that the fork is told."""

    config: TrialConfig
    folder: Path
    device: str = "cpu"
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochReport:
    """One epoch's metrics, sent once its history line is on disk, and its checkpoint if one was due."""

    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class FirstStep:
    """The trial is under way: model and data are in place and its first step begins."""


TrialMessage = FirstStep | EpochReport | TrialOutcome


@dataclass(frozen=True)
class ProbeReady:
    """A probe has done its first steps and waits for the word to go."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured."""

    images_per_second: float


@dataclass
class StopFlag:
    """Set from a signal handler or the pipe, read by the training loop at every step."""

    reason: StopReason | None = None

    def preempt(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """A signal handler: checkpoint at the next step and stop."""
        self.reason = self.reason or StopReason.PREEMPTED

    def prune(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """A signal handler: end at the next step with the result there is."""
        self.reason = self.reason or StopReason.PRUNED


def run_in_fork(job: TrialJob, pipe: Connection) -> None:
    """Entry point of the forked process; returns when the trial has ended and its outcome is sent."""
    flag = StopFlag()
    _settle(job, flag)
    threading.Thread(target=_listen, args=(pipe, flag), daemon=True, name="stop-listener").start()
    pipe.send(_outcome(lambda: train_here(job, flag, pipe.send)))
    pipe.close()


def probe_in_fork(job: TrialJob, pipe: Connection) -> None:
    """Entry point of a fork that only measures: ``ProbeReady``, the word to go, ``ProbeResult``, and an end by signal.

    A training that ends before that sends its outcome instead.
    """
    _settle(job, StopFlag())
    steps = _timed_steps(job, pipe)
    pipe.send(_outcome(lambda: _train(job, lambda: next(steps), lambda metrics: None)))


def _timed_steps(job: TrialJob, pipe: Connection) -> Iterator[None]:
    """Asked before every step; never comes back once enough of them were timed."""
    import torch

    def clock() -> float:
        if job.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(PROBE_STEPS):  # the first ones choose kernels and fill caches
        yield
    pipe.send(ProbeReady())
    pipe.recv()
    began, steps = clock(), 0
    while steps < PROBE_STEPS or clock() - began < PROBE_S:
        yield
        steps += 1
    pipe.send(ProbeResult(steps * job.config.batch_size / (clock() - began)))
    pipe.poll(None)  # holding on to the memory until the agent has seen it and ends this process
    os._exit(1)  # the agent is gone


def train_here(job: TrialJob, flag: StopFlag, send: Callable[[TrialMessage], None]) -> TrialOutcome:
    """Train in this process.

    Args:
        job: What to train, where and on what.
        flag: Asked at every step.
        send: Called with FirstStep, then with an EpochReport after every epoch.

    Raises:
        FolderInUse: Another process trains in the folder.
        FersweepError: As ``training.loop.train`` does.
    """
    under_way = False

    def stop() -> StopReason | None:
        nonlocal under_way
        if not under_way:
            under_way = True
            send(FirstStep())
        return flag.reason

    return _train(job, stop, lambda metrics: send(EpochReport(int(metrics["epoch"]), dict(metrics))))


def _train(
    job: TrialJob, stop: Callable[[], StopReason | None], on_epoch: Callable[[Mapping[str, float]], None]
) -> TrialOutcome:
    with _folder_to_itself(job.folder):
        import torch  # agent/ meets torch in this module alone, inside the fork

        from fer_sweep.training.loop import train

        if torch.get_num_threads() != job.threads:
            torch.set_num_threads(job.threads)
        keep_freed_memory()
        return train(job.config, job.folder, device=job.device, on_epoch=on_epoch, stop=stop)


def _settle(job: TrialJob, flag: StopFlag) -> None:
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the agent decides
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, flag.preempt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    job.folder.mkdir(parents=True, exist_ok=True)
    _send_output_to(job.folder / "trial.log")
    os.environ.update(job.environment)


def _outcome(training: Callable[[], TrialOutcome]) -> TrialOutcome:
    try:
        return training()
    except (StorageError, FolderInUse) as error:
        # Nothing is wrong with the configuration: it goes on once there is room, or once the other process has ended.
        return TrialOutcome(TrialState.PREEMPTED, reason=_in_words(error))
    except FersweepError as error:
        print(f"error: {_in_words(error)}", file=sys.stderr, flush=True)
        return TrialOutcome(TrialState.FAILED, reason=_in_words(error))
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        return TrialOutcome(TrialState.FAILED, reason=f"{type(error).__name__}: {error}"[:_LONGEST_REASON])


def _in_words(error: FersweepError) -> str:
    return (f"{error} ({error.hint})" if error.hint else str(error))[:_LONGEST_REASON]


def _listen(pipe: Connection, flag: StopFlag) -> None:
    while True:
        try:
            flag.reason = pipe.recv()
        except (EOFError, OSError):
            # The agent is gone. What is on disk is whole, and the next agent goes on from it; leaving at once
            # keeps two processes from ever training one trial.
            os._exit(1)


def _die_with_parent() -> None:
    # Linux only; elsewhere the broken pipe does the same a moment later.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_freed_memory() -> None:
    """Have this process keep the memory it frees, on glibc; elsewhere nothing happens.

    glibc gives every large block back to the kernel as soon as it is freed, and each step pays for the page faults of
    getting it again. Kept, a step of batch 256 takes a half (SimpleCNN) to three quarters (ResNet18) of the time, for a
    tenth more memory.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _send_output_to(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


@contextlib.contextmanager
def _folder_to_itself(folder: Path) -> Iterator[None]:
    # The kernel drops the lock with the process, so a killed predecessor never leaves it behind.
    with (folder / ".lock").open("w") as stream:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FolderInUse(f"another process trains in {folder}", hint="end it first") from None
                time.sleep(0.05)
        yield
