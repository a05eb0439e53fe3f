"""Starting trials: a forkserver that has torch imported, and the agent's end of each trial's pipe."""

import errno
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from fer_sweep.config.trial import ARCHITECTURES
from fer_sweep.errors import AgentFailed
from fer_sweep.host_processes import is_paused
from fer_sweep.records import Cause, StopReason
from fer_sweep.worker.causes import speaks_of_memory
from fer_sweep.worker.memory import OomKills, shortage
from fer_sweep.worker.trial_process import (
    HELD_BACK,
    PRELOAD,
    TrialJob,
    TrialMessage,
    probe_in_fork,
    run_in_fork,
)

_LOG_TAIL_BYTES = 2000
"""Or characters, as good as."""
_FORKSERVER_GONE = 255
"""What multiprocessing gives as the exit code of a fork whose forkserver can no longer tell it."""
_OUTSIDE_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
_REAP_S = 10.0
_STARTS = 5
"""How often a forkserver that dies while it starts is started again."""
_ENOUGH_FILES = 8192
_LONGEST_TMPDIR = 70
"""Bytes: the path of a Unix socket has at most 103 (macOS) or 107 (Linux), and multiprocessing appends 32."""
_SHORT_TMPDIRS = ("/tmp", "/var/tmp", "/dev/shm")
_PACKAGES = Path(__file__).resolve().parent.parent.parent
"""The folder fersweep is imported from."""
_SHORT_OF = {
    errno.EMFILE: "this process may open no more files: raise the limit (ulimit -n), or use fewer slots",
    errno.ENFILE: "the host may open no more files: end something else, or use fewer slots",
    errno.EAGAIN: "no more processes may be started: raise the limit (ulimit -u), or use fewer slots",
    errno.ENOMEM: "there is no memory left: end something else, or use fewer slots",
}


class TrialHandle:
    """One running trial, as its agent sees it: messages come out of ``pipe``, a stop goes in."""

    def __init__(self, process: BaseProcess, pipe: Connection, folder: Path, oom_kills: OomKills) -> None:
        self.process = process
        self.pipe = pipe
        self.folder = folder
        self._oom_kills = oom_kills
        self._oom_kills_before = oom_kills.unexplained()
        self._shortage: str | None = None
        """How short of memory the host was when that was last looked at."""

    def messages(self) -> Iterator[TrialMessage]:
        """What has arrived since the last call; never blocks.

        Raises:
            EOFError: The process has ended and everything it sent has been read.
        """
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except OSError as error:  # a connection reset is the end of a killed process as much as an EOF is
            raise EOFError from error

    def ask_to_stop(self, reason: StopReason) -> None:
        """Have the trial stop at its next step, with a checkpoint where it is to go on later."""
        try:
            self.pipe.send(reason)
        except OSError:
            return  # it has ended by itself; its outcome is in the pipe or its exit code tells

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the process to end, at most so long."""
        self.process.join(max(0.0, timeout_s))
        return not self.process.is_alive()

    def kill(self) -> None:
        """End it at once; what it has written stays whole."""
        self.process.kill()

    def abort(self) -> None:
        """Have it write down where it is, in trial.log, and end; one that cannot even do that is to be killed."""
        if self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGABRT)

    def is_paused(self) -> bool:
        """Whether somebody has stopped the process, to go on later."""
        return self.process.pid is not None and is_paused(self.process.pid)

    def look_at_memory(self) -> None:
        """See how short of memory the host is, for the reason of an end that may come of it."""
        if self.process.pid is not None:
            self._shortage = shortage(self.process.pid)

    def close(self) -> None:
        """Reap the process, killing it if it hangs at its exit, and let go of the pipe."""
        self.process.join(_REAP_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self.process.close()

    def why_it_died(self) -> tuple[str, Cause | None]:
        """For a process that ended without an outcome: the reason in words, and its kind if it has one."""
        self.process.join()
        code = self.process.exitcode
        tail = log_tail(self.folder / "trial.log")
        cause = Cause.KILLED if code == _FORKSERVER_GONE or -(code or 0) in _OUTSIDE_SIGNALS else None
        if code == _FORKSERVER_GONE:
            reason = "ended with the forkserver, which was killed"
        elif code is not None and code < 0:
            reason = f"ended by {signal.Signals(-code).name}"
        else:
            reason = f"ended with exit code {code} and no outcome"
        if code == -signal.SIGKILL and self._oom_kills.explain(self._oom_kills_before):
            reason, cause = f"{reason}, by the kernel: out of memory", Cause.OUT_OF_MEMORY
        elif code == -signal.SIGKILL and self._shortage is not None:
            reason = f"{reason}, probably for want of memory: {self._shortage}"
        elif cause is Cause.KILLED and code != _FORKSERVER_GONE:
            reason = f"{reason} from outside"
        elif cause is None and speaks_of_memory(tail):
            cause = Cause.OUT_OF_MEMORY
        return (f"{reason}; last lines of trial.log:\n{tail}" if tail else reason), cause


class Starter(Protocol):
    """Starts the process of each trial: what an agent's loop asks for."""

    def warm_up(self) -> None:
        """Prepare while the agent does other things; never waits."""

    def start(self, job: TrialJob, *, is_probe: bool = False) -> TrialHandle:
        """Start a trial, or a probe of one.

        Raises:
            AgentFailed: No process can be started.
        """

    def close(self) -> None:
        """End what serves to start trials; every trial has ended."""


class TrialStarter:
    """The forkserver behind one agent's slots."""

    def __init__(self, models: Iterable[str] = tuple(ARCHITECTURES)) -> None:
        """Prepare a forkserver; ``models`` are the architectures its trials may have, imported there once."""
        self._context = multiprocessing.get_context("forkserver")
        self._oom_kills = OomKills()
        modules = [f"fer_sweep.models.{model}" for model in models]
        self._context.set_forkserver_preload([PRELOAD, *modules, run_in_fork.__module__])
        # transformers asks at import whether CUDA is there; NVML can say so without a context that forks would share.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

    def warm_up(self) -> None:
        """Start the forkserver, which imports torch while the agent does other things."""
        with _surroundings():
            resource_tracker.ensure_running()
        with _surroundings():  # once more: the start of the resource tracker unblocks signals
            forkserver.ensure_running()

    def close(self) -> None:
        """End the forkserver, which may still be importing and would hold on to this process's output."""
        _end_forkserver()

    def start(self, job: TrialJob, *, is_probe: bool = False) -> TrialHandle:
        """Fork a trial, or a probe of one; it reaches its first step about 0.1 s later once the forkserver is warm."""
        try:
            ours, theirs = self._context.Pipe()
        except OSError as error:
            raise _cannot_start(error) from error
        work = probe_in_fork if is_probe else run_in_fork
        process = self._context.Process(target=work, args=(job, theirs), name=f"trial-{job.folder.name}")
        for starts_left in reversed(range(_STARTS)):
            try:
                with _surroundings():
                    process.start()
                break
            except (EOFError, ConnectionError) as error:
                # It was killed between the last fork and this one.
                if not starts_left:
                    raise AgentFailed(
                        f"the forkserver died {_STARTS} times while starting",
                        hint="it needs about 1 GB of memory to import torch; what else is running here?",
                    ) from error
                _end_forkserver()  # multiprocessing asks one that is not quite gone yet, and starts another after that
                process = self._context.Process(target=work, args=(job, theirs), name=process.name)
            except OSError as error:
                raise _cannot_start(error) from error
        theirs.close()
        return TrialHandle(process, ours, job.folder, self._oom_kills)


def _end_forkserver() -> None:
    server: Any = forkserver._forkserver  # no public name ends a forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


def _cannot_start(error: OSError) -> AgentFailed:
    hint = _SHORT_OF.get(error.errno or 0, "what it needs is missing here: fersweep doctor")
    return AgentFailed(f"no trial can be started: {error.strerror or error}", hint=hint)


def raise_file_limit() -> None:
    """Let this process open as many files as it may: each slot takes some ten, and shells often start with few."""
    import resource  # only here: Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def log_tail(log: Path) -> str:
    """The last lines of a trial's log, for its reason; empty if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 10 * _LOG_TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # Among a crash's last words is a list of every extension module there is, longer than all the rest.
    return "\n".join(line for line in lines if not line.startswith("Extension modules:")).strip()[-_LOG_TAIL_BYTES:]


@contextmanager
def _surroundings() -> Iterator[None]:
    """What the forkserver and its forks inherit from this process: signals blocked, and none of the user's modules."""
    # A process started now inherits the mask, so that a signal to the whole process group (Ctrl-C, a closed terminal,
    # scancel) ends neither the forkserver, whose forks would die with it, nor a fork in its first milliseconds. For
    # the agent itself a signal of this moment only waits.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    # multiprocessing has every child run the main module's file again, for functions defined there. Ours is the
    # console script: that cost each trial 0.1 s, and a fersweep updated on disk under a running agent broke them all.
    main, path, temporary = sys.modules["__main__"], sys.path, tempfile.tempdir
    sys.modules["__main__"] = ModuleType("__main__")
    safe = os.environ.get("PYTHONSAFEPATH")
    if not _PACKAGES.samefile("."):  # a random.py or torch.py in the working directory is not meant for us
        sys.path = [entry for entry in path if Path(entry).resolve() != Path.cwd()]
        os.environ["PYTHONSAFEPATH"] = "1"
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TMPDIR:
        tempfile.tempdir = next((place for place in _SHORT_TMPDIRS if os.access(place, os.W_OK)), temporary)
    try:
        get_temp_dir()  # multiprocessing asks tempfile once, and keeps the forkserver's socket there
        yield
    finally:
        tempfile.tempdir = temporary
        if safe is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        sys.path = path
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
