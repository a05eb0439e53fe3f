"""Trials as forks of a server that has torch imported: Linux, and macOS without MPS."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from typing import Any

from fer_sweep.config.trial import ARCHITECTURES
from fer_sweep.errors import AgentFailed
from fer_sweep.host_processes import KILL
from fer_sweep.worker.resources import OomKills
from fer_sweep.worker.slots import Slot
from fer_sweep.worker.starters.handle import TrialHandle
from fer_sweep.worker.starters.surroundings import cannot_start, preloaded, surroundings
from fer_sweep.worker.trial_process import TrialJob, run_trial

_STARTS = 5
"""Attempts to start a forkserver that dies while it starts."""
_LONGEST_TMPDIR = 70
"""Bytes: the path of a Unix socket has at most 103 (macOS) or 107 (Linux), and multiprocessing appends 32."""
_SHORT_TMPDIRS = ("/tmp", "/var/tmp", "/dev/shm")


class ForkserverStarter:
    """The forkserver behind one agent's slots."""

    def __init__(self, models: Iterable[str] = tuple(ARCHITECTURES)) -> None:
        self._context: Any = multiprocessing.get_context("forkserver")  # mypy knows of none on Windows
        self._oom_kills = OomKills()
        self._context.set_forkserver_preload(preloaded(models))

    def warm_up(self, slot: Slot) -> None:
        """Start the forkserver, which imports torch in the background and serves every slot."""
        with suppress(OSError), _socket_in_reach(), surroundings():  # the start of a trial reports what is wrong
            forkserver.ensure_running()

    def close(self) -> None:
        """Kill the forkserver; one that is still importing would keep this process's output open."""
        _end_forkserver()

    def start(self, job: TrialJob) -> TrialHandle:
        """Fork a trial: from a warm forkserver about 0.1 s to its first step."""
        try:
            ours, theirs = self._context.Pipe()
            process = self._fork(job, theirs)
        except ConnectionError as error:
            raise AgentFailed(
                f"the forkserver died {_STARTS} times while starting",
                hint="it needs about 1 GB of memory to import torch: free some, or use fewer slots",
            ) from error
        except OSError as error:
            raise cannot_start(error) from error
        theirs.close()
        return TrialHandle(process, ours, job.folder, self._oom_kills)

    def _fork(self, job: TrialJob, pipe: Connection) -> BaseProcess:
        for _ in range(_STARTS):
            name = f"trial-{job.folder.name}"
            process: BaseProcess = self._context.Process(target=run_trial, args=(job, pipe), name=name)
            try:
                with _socket_in_reach(), surroundings():
                    process.start()
            except (EOFError, ConnectionError):  # the forkserver was killed since the last fork
                _end_forkserver()  # multiprocessing does not replace one that is still ending
            else:
                return process
        raise ConnectionError


def _end_forkserver() -> None:
    server: Any = forkserver._forkserver  # there is no public API to end a forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, KILL)
        server._stop()


@contextmanager
def _socket_in_reach() -> Iterator[None]:
    """Keep the forkserver's socket in a folder whose path is short enough for one."""
    temporary = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TMPDIR:
        tempfile.tempdir = next((place for place in _SHORT_TMPDIRS if os.access(place, os.W_OK)), temporary)
    try:
        get_temp_dir()  # multiprocessing asks tempfile once, and keeps the socket there
        yield
    finally:
        tempfile.tempdir = temporary
