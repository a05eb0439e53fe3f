"""A trial's process in which trial 0 reads beyond its data set: on a GPU no exception, but an assertion in a kernel."""

from multiprocessing.connection import Connection

from torch import Tensor

from fer_sweep.agent import trial_process
from fer_sweep.agent.trial_process import TrialJob
from fer_sweep.training.faces import Faces

_batch = Faces.batch


def _beyond(faces: Faces, positions: Tensor) -> Tensor:
    return _batch(faces, positions + 10**6)


def run_in_fork(job: TrialJob, pipe: Connection) -> None:
    if job.folder.name == "0":
        Faces.batch = _beyond  # type: ignore[method-assign]
    trial_process.run_in_fork(job, pipe)
