"""Trials as processes of their own, each started ahead of time: Windows, and MPS, which does not survive a fork."""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from fer_sweep.config.trial import ARCHITECTURES
from fer_sweep.host_processes import KILL, end_with_parent
from fer_sweep.worker.resources import OomKills, be_killed_first
from fer_sweep.worker.slots import CUDA_CONTEXT_MB, Slot, free_gpu_mb
from fer_sweep.worker.starters.handle import TrialHandle
from fer_sweep.worker.starters.surroundings import cannot_start, preloaded, surroundings
from fer_sweep.worker.trial_process import TrialJob, open_context, run_trial

_ROOM_MB = 4 * CUDA_CONTEXT_MB
"""A spare opens its CUDA context only if so much of the GPU is free: the running trial may not have all its memory."""

_Place = tuple[str, tuple[tuple[str, str], ...]]
"""What a process cannot change once it has imported torch: its device and its environment variables."""


@dataclass(frozen=True)
class _Spare:
    """A process that imports, and then waits for a job."""

    process: BaseProcess
    pipe: Connection
    oom_kills_before: int

    def takes(self, job: TrialJob) -> bool:
        """Hand it a job; False if it has died."""
        try:
            self.pipe.send(job)
        except OSError:
            return False
        return True


class SpawnStarter:
    """Starts trials from spares: one waits for each device while a trial trains there."""

    def __init__(self, models: Iterable[str] = tuple(ARCHITECTURES)) -> None:
        self._context: Any = multiprocessing.get_context("spawn")  # its pipes are of another class on Windows
        self._modules = preloaded(models)
        self._oom_kills = OomKills()
        self._spares: dict[_Place, _Spare] = {}

    def warm_up(self, slot: Slot) -> None:
        """Start a spare for the slot's device unless one waits; all CPU slots share one."""
        place = _place(slot.device, slot.environment)
        spare = self._spares.get(place)
        if spare is not None and not spare.process.is_alive():
            self._end(self._spares.pop(place))
        if place not in self._spares:
            with suppress(OSError):  # the start of a trial reports what is wrong
                self._spares[place] = self._begin(place, opens_context=_has_room(slot))

    def start(self, job: TrialJob) -> TrialHandle:
        """Have a spare run a trial: about 0.1 s to its first step, or the seconds of the imports without a warm one."""
        place = _place(job.device, job.environment)
        spare = self._spares.pop(place, None)
        if spare is None or not spare.takes(job):
            if spare is not None:
                self._end(spare)
            try:
                spare = self._begin(place, opens_context=False)
                spare.pipe.send(job)
            except OSError as error:
                raise cannot_start(error) from error
        return TrialHandle(spare.process, spare.pipe, job.folder, self._oom_kills)

    def close(self) -> None:
        """Kill the spares."""
        while self._spares:
            self._end(self._spares.popitem()[1])

    def _begin(self, place: _Place, *, opens_context: bool) -> _Spare:
        ours, theirs = self._context.Pipe()
        given = (run_trial, theirs, place, self._modules, opens_context)
        process = self._context.Process(target=_stand_by, args=given, name="trial")
        try:
            with surroundings():
                process.start()
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Spare(process, ours, self._oom_kills.unexplained())

    def _end(self, spare: _Spare) -> None:
        if not spare.process.is_alive() and spare.process.exitcode == -KILL:
            self._oom_kills.explain(spare.oom_kills_before)  # else that kill would explain the end of a trial
        spare.process.kill()
        spare.process.join()
        spare.process.close()
        spare.pipe.close()


def _place(device: str, environment: Mapping[str, str]) -> _Place:
    return device, tuple(sorted(environment.items()))


def _has_room(slot: Slot) -> bool:
    """Whether a spare is to open a context on the slot's device while a trial trains there."""
    if not slot.device.startswith("cuda"):
        return slot.device != "cpu"
    free = free_gpu_mb(slot.environment["CUDA_VISIBLE_DEVICES"])
    return free is not None and free >= _ROOM_MB


def _stand_by(
    run: Callable[[TrialJob, Connection], None],
    pipe: Connection,
    place: _Place,
    modules: Sequence[str],
    opens_context: bool,
) -> None:
    """Entry point of a spare: import, wait for a job, run it and end."""
    end_with_parent()  # outside Linux the closed pipe ends it
    be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows holds back no signals
    device, environment = place
    os.environ.update(environment)
    for module in modules:
        with suppress(ImportError):  # the trial fails by it, with a reason
            importlib.import_module(module)
    if opens_context:
        open_context(device)
    try:
        job = pipe.recv()
    except (EOFError, OSError):  # the agent has ended
        return
    run(job, pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # as a fork ends: the agent waits for this process, and unloading torch takes time
