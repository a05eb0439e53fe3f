"""Entry points of a trial's process in place of ``trial_process.run_trial``: at a known point, trial 0 goes wrong."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from fer_sweep.worker.trial_process import Beat, EpochReport, TrialJob, TrialMessage, run_trial

if TYPE_CHECKING:
    import pytest


def play(entry: Callable[[TrialJob, Connection], None], patch: "pytest.MonkeyPatch") -> None:
    """Have trials that start from now on run this."""
    for starter in ("forkserver", "spawn"):
        patch.setattr(f"fer_sweep.worker.starters.{starter}.run_trial", entry)


def killed_in_epoch_2(job: TrialJob, pipe: Connection) -> None:
    """Its first attempt is killed with kill -9 when two epochs are trained and one is reported."""
    is_first_attempt = not (job.folder / "last.ckpt").exists()

    def send(message: TrialMessage, whole: Callable[[TrialMessage], None] = pipe.send) -> None:
        if isinstance(message, EpochReport) and message.epoch == 2 and is_first_attempt and job.folder.name == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        whole(message)

    pipe.send = send  # type: ignore[method-assign] # the fault
    run_trial(job, pipe)


def telling_its_surroundings(job: TrialJob, pipe: Connection) -> None:
    """At the first step it sends the variables that its job sets, and how many threads torch has."""

    def send(message: TrialMessage, whole: Callable[[object], None] = pipe.send) -> None:
        if isinstance(message, Beat) and not message.steps:
            import torch

            whole({**{name: os.environ[name] for name in job.environment}, "threads": torch.get_num_threads()})
        whole(message)

    pipe.send = send  # type: ignore[method-assign] # tells more
    run_trial(job, pipe)


def reading_beyond_the_data(job: TrialJob, pipe: Connection) -> None:
    """On a GPU, that is no exception but an assertion in a kernel."""
    from fer_sweep.training.faces import Faces

    batch = Faces.batch
    if job.folder.name == "0":
        Faces.batch = lambda faces, positions: batch(faces, positions + 10**6)  # type: ignore[method-assign] # the fault
    run_trial(job, pipe)
