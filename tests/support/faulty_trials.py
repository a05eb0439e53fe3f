"""Entry points of a trial's process in place of ``trial_process.run_in_fork``: at a known point, trial 0 goes wrong."""

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from fer_sweep.worker.trial_process import EpochReport, TrialJob, TrialMessage, run_in_fork


def killed_in_epoch_2(job: TrialJob, pipe: Connection) -> None:
    """Its first attempt is killed with kill -9 when two epochs are trained and one is reported."""
    is_first_attempt = not (job.folder / "last.ckpt").exists()

    def send(message: TrialMessage, whole: Callable[[TrialMessage], None] = pipe.send) -> None:
        if isinstance(message, EpochReport) and message.epoch == 2 and is_first_attempt and job.folder.name == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        whole(message)

    pipe.send = send  # type: ignore[method-assign] # the fault
    run_in_fork(job, pipe)


def reading_beyond_the_data(job: TrialJob, pipe: Connection) -> None:
    """On a GPU, that is no exception but an assertion in a kernel."""
    from fer_sweep.training.faces import Faces

    batch = Faces.batch
    if job.folder.name == "0":
        Faces.batch = lambda faces, positions: batch(faces, positions + 10**6)  # type: ignore[method-assign] # the fault
    run_in_fork(job, pipe)
