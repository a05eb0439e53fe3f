"""What runs in the fork: one trial in a process of its own, which knows neither search, tracking nor slot.

It gets a configuration, a folder and a pipe. It sends ``EpochReport`` and at its end ``TrialOutcome`` through the
pipe, takes a ``StopReason`` from it, and dies with its agent: when the pipe breaks there is nobody left to train for.
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

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import FersweepError, OtherData, StorageError, cannot_write
from fer_sweep.host_processes import end_with_parent
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.worker.causes import cause_of, in_words
from fer_sweep.worker.folder_lock import FolderInUse, folder_to_itself
from fer_sweep.worker.own_process import (
    go_before_the_agent,
    keep_freed_memory,
    keep_to_share,
    send_output_to,
)

PRELOAD = "fer_sweep.training.preload"
"""What the forkserver imports once, so that a fork starts with torch in place."""

HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
"""Signals a fork starts with blocked, until it has handlers for them."""

PROBE_STEPS, PROBE_S = 4, 1.5
"""A probe times so many steps at least, after as many that are not (on a GPU the fourth is captured as a graph), and
goes on for so many seconds."""

_LONGEST_REASON = 2000
_BEAT_S = 1.0


@dataclass(frozen=True)
class TrialJob:
    """All that the fork is told."""

    config: TrialConfig
    folder: Path
    device: str = "cpu"
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    """Which one of the trial this is; 0 for one by hand, of which nobody else keeps count."""
    memory_share: float | None = None
    """The part of its device's memory it may take; None for all there is."""
    micro_batch: int | None = None
    """Images at once, where memory does not hold a whole batch."""
    checkpoints: Path | None = None
    """Where they go, if not into the folder."""
    fingerprint: str | None = None
    """Of its data set, if only this content of it will do."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch's metrics, sent once its history line is on disk, and its checkpoint if one was due."""

    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class FirstStep:
    """The trial is under way: model and data are in place and its first step begins."""


@dataclass(frozen=True)
class Beat:
    """The trial makes steps, or parts of an evaluation; sent once a second at most."""

    at: float
    """When, by the monotonic clock that all processes of a host share."""


TrialMessage = FirstStep | EpochReport | Beat | TrialOutcome


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

    def training() -> TrialOutcome:
        _settle(job, flag)
        threading.Thread(target=_listen, args=(pipe, flag), daemon=True, name="stop-listener").start()
        return train_here(job, flag, pipe.send)

    pipe.send(_outcome(training))
    pipe.close()


def probe_in_fork(job: TrialJob, pipe: Connection) -> None:
    """Entry point of a fork that only measures: ``ProbeReady``, the word to go, ``ProbeResult``, and an end by signal.

    A training that ends before that sends its outcome instead.
    """
    steps = _timed_steps(job, pipe)

    def training() -> TrialOutcome:
        _settle(job, StopFlag())
        return _train(job, lambda: next(steps), lambda metrics: None)

    pipe.send(_outcome(training))


def _timed_steps(job: TrialJob, pipe: Connection) -> Iterator[None]:
    """Asked before every step; never comes back once enough of them were timed."""
    import torch

    def clock() -> float:
        if job.device != "cpu":
            torch.cuda.synchronize()  # never between steps: a training does not wait for the device there either
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
    pipe.poll(None)  # holding on to the memory until the agent has seen it and ends this process
    os._exit(1)  # the agent is gone


def train_here(job: TrialJob, flag: StopFlag, send: Callable[[TrialMessage], None]) -> TrialOutcome:
    """Train in this process.

    Args:
        job: What to train, where and on what.
        flag: Asked at every step.
        send: Called with FirstStep, then with an EpochReport after every epoch, and with Beats in between.

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
    with folder_to_itself(job.folder, job.attempt):
        import torch  # agent/ meets torch in this module alone, inside the fork

        from fer_sweep.training.loop import train

        if torch.get_num_threads() != job.threads:
            torch.set_num_threads(job.threads)
        keep_freed_memory()
        if job.memory_share is not None and job.device == "cpu":
            keep_to_share(job.memory_share)
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


def _settle(job: TrialJob, flag: StopFlag) -> None:
    end_with_parent(signal.SIGKILL)  # elsewhere than on Linux the broken pipe does it, a moment later
    go_before_the_agent()
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
    faulthandler.enable()  # a crash, or the SIGABRT to one that hangs, leaves in trial.log where it was


def _outcome(training: Callable[[], TrialOutcome]) -> TrialOutcome:
    try:
        return training()
    except (StorageError, FolderInUse, OtherData) as error:
        # Nothing is wrong with the configuration: it goes on once there is room, the other process has ended, or the
        # data is back.
        return TrialOutcome(TrialState.PREEMPTED, reason=_with_hint(error))
    except FersweepError as error:
        _write_down(f"error: {_with_hint(error)}\n")
        return TrialOutcome(TrialState.FAILED, reason=_with_hint(error))
    except Exception as error:
        _write_down(traceback.format_exc())
        reason = in_words(error)[:_LONGEST_REASON]
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason += f" (in {where.name}, {Path(where.filename).name} line {where.lineno}; trial.log has all of it)"
        return TrialOutcome(TrialState.FAILED, reason=reason, cause=cause_of(error))


def _write_down(text: str) -> None:
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
            # The agent is gone. What is on disk is whole, and the next agent goes on from it; leaving at once
            # keeps two processes from ever training one trial.
            os._exit(1)
