"""Trials played by threads over real pipes: they enter through the ``Starter`` seam in place of forked processes.

A script plays a trial. It gets a ``PlayedTrial`` to act on and returns the trial's outcome; the default script "trains"
the epochs of its configuration in no time, from its checkpoint if there is one, and ends complete. No script takes real
time: a trial that is to run until something happens waits to be stopped or killed (``train_then_wait``).
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from fer_sweep.files import write_atomically
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.training.history import History, read_history
from fer_sweep.worker.resources import OomKills
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters import TrialHandle
from fer_sweep.worker.trial_process import Beat, EpochReport, StopFlag, TrialJob, TrialMessage, _outcome, train_here
from tests.support.records import make_result

WAIT_S = 20.0
"""Bounds a failing test only."""


class Killed(Exception):
    """Raised in a script whose trial has been killed."""


class PlayedTrial(threading.Thread):
    """One attempt at a trial, as its script sees it; to a ``TrialHandle`` it is the trial's process."""

    pid = None
    exitcode = 0

    def __init__(self, job: TrialJob, pipe: Connection, script: "Script") -> None:
        super().__init__(name=f"trial-{job.folder.name}", daemon=True)
        self.job = job
        self.trial_id = job.folder.name
        self._script = script
        self._pipe = pipe
        self._killed, self._kill = os.pipe()
        self._history = History(job.folder / "history.jsonl")
        self._checkpoint = (job.checkpoints or job.folder) / "last.ckpt"
        kept = int(self._checkpoint.read_text()) if self._checkpoint.exists() else 0
        self._history.restart(read_history(self._history.path)[:kept])

    @property
    def epoch(self) -> int:
        """The last one trained."""
        return len(self._history.rows)

    def begin(self) -> None:
        """Send the checkpoint's epochs again, then say that the first step begins, as the training loop does."""
        for row in self._history.rows:
            self.send(EpochReport(int(row["epoch"]), row))
        self.send(Beat(time.monotonic()))

    def train(self, epochs: int = 1) -> None:
        """Train so many epochs, each with a checkpoint."""
        for epoch in range(self.epoch + 1, self.epoch + epochs + 1):
            self._history.append(metrics_of(epoch))
            write_atomically(self._checkpoint, str(epoch))
            self.send(EpochReport(epoch, self._history.rows[-1]))

    def beat(self, at: float) -> None:
        """Say that a step was made then, by the monotonic clock."""
        self.send(Beat(at))

    def send(self, message: TrialMessage) -> None:
        """Send a message to the agent, unless the trial has been killed."""
        self._arrived(0.0)
        self._pipe.send(message)

    def asked_to_stop(self) -> StopReason | None:
        """What the agent has asked for by now, if anything, unless the trial has been killed."""
        return self._pipe.recv() if self._arrived(0.0) else None

    def wait_for_stop(self) -> StopReason:
        """Train no further until the agent asks for an end, or kills the trial."""
        assert self._arrived(WAIT_S), f"trial {self.trial_id} was not asked to stop"
        return self._pipe.recv()

    def _arrived(self, timeout_s: float) -> bool:
        ready = wait([self._pipe, self._killed], timeout_s)
        if self._killed in ready:
            raise Killed
        return bool(ready)

    def run(self) -> None:
        with contextlib.suppress(Killed), contextlib.closing(self._pipe):
            outcome = self._script(self)
            if outcome.state.has_ended and outcome.result is not None:
                write_atomically(self.job.folder / "result.json", outcome.result.model_dump_json())
                self._checkpoint.unlink(missing_ok=True)  # what has ended is not resumed
            self.send(outcome)

    def join(self, timeout: float | None = WAIT_S) -> None:
        super().join(timeout)

    def kill(self) -> None:
        if self.is_alive():
            self.exitcode = -signal.SIGKILL
            os.write(self._kill, b"k")

    def close(self) -> None:
        assert not self.is_alive(), f"the script of trial {self.trial_id} does not end"
        os.close(self._killed)
        os.close(self._kill)


Script = Callable[[PlayedTrial], TrialOutcome]


def metrics_of(epoch: int) -> dict[str, float]:
    """An epoch's line of the history: accuracy rises, the gap widens."""
    train, val = 1 - 0.8 / epoch, 1 - 0.8 / epoch**0.5
    accuracies = {"train_acc": train, "val_acc": val, "train_val_gap": train - val, "best_val_acc": val}
    losses = {"train_loss": 2 / epoch, "val_loss": 2 / epoch**0.5}
    return {"epoch": epoch, **losses, **accuracies, "lr": 0.001, "images_per_second": 1000.0}


def outcome_of(state: TrialState, epochs: int) -> TrialOutcome:
    """The outcome of a trial that ended well after so many epochs."""
    last = {name: metrics_of(epochs)[name] for name in ("best_val_acc", "train_acc", "train_val_gap")}
    return TrialOutcome(state, make_result(epochs=epochs, best_epoch=epochs, **last))


def stopped(trial: PlayedTrial, reason: StopReason) -> TrialOutcome:
    """End as the training loop does when it is asked to stop."""
    state = TrialState(reason)
    has_result = reason is not StopReason.PREEMPTED and trial.epoch
    return outcome_of(state, trial.epoch) if has_result else TrialOutcome(state)


def train_all(trial: PlayedTrial) -> TrialOutcome:
    """Train every epoch of the configuration unless asked to stop."""
    trial.begin()
    while trial.epoch < trial.job.config.epochs:
        if reason := trial.asked_to_stop():
            return stopped(trial, reason)
        trial.train()
    return outcome_of(TrialState.COMPLETE, trial.epoch)


def train_then_wait(epochs: int) -> Script:
    """Train so many epochs and wait to be stopped; an attempt that resumes from a checkpoint trains to the end."""

    def script(trial: PlayedTrial) -> TrialOutcome:
        if trial.epoch:
            return train_all(trial)
        trial.begin()
        trial.train(epochs)
        return stopped(trial, trial.wait_for_stop())

    return script


def train_for_real(trial: PlayedTrial) -> TrialOutcome:
    """Train as a forked trial does, for a test that needs the weights of a sweep's trials."""
    return _outcome(lambda: train_here(trial.job, StopFlag(), trial.send))


class ScriptedStarter:
    """Starts trials as threads, and remembers them."""

    def __init__(self, script: Script = train_all) -> None:
        self.script = script
        self.jobs: list[TrialJob] = []
        self.trials: list[PlayedTrial] = []
        self.warmed_up: list[str] = []
        self.is_closed = False

    def warm_up(self, slot: Slot) -> None:
        self.warmed_up.append(slot.name)

    def close(self) -> None:
        self.is_closed = True

    def start(self, job: TrialJob) -> TrialHandle:
        job.folder.mkdir(parents=True, exist_ok=True)
        if not (job.folder / "config.json").exists():
            write_atomically(job.folder / "config.json", job.config.model_dump_json())
        ours, theirs = multiprocessing.Pipe()
        trial = PlayedTrial(job, theirs, self.script)
        self.jobs.append(job)
        self.trials.append(trial)
        trial.start()
        return TrialHandle(trial, ours, job.folder, OomKills())

    def kill(self, trial_id: str) -> None:
        """Kill the latest attempt at a trial."""
        next(trial for trial in reversed(self.trials) if trial.trial_id == trial_id).kill()

    @property
    def all_have_ended(self) -> bool:
        return not any(trial.is_alive() for trial in self.trials)
