"""Starters of trial processes: a forkserver that has torch imported, and the agent's end of each trial's pipe."""

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
from fer_sweep.host_processes import KILL, STOP_SIGNALS, holding_back_signals
from fer_sweep.records import Cause, StopReason
from fer_sweep.worker.resources import OomKills
from fer_sweep.worker.trial_process import PRELOAD, TrialJob, TrialMessage, mentions_memory, run_in_fork

_LOG_TAIL = 2000
"""Characters of trial.log in the reason of a failure."""
_FORKSERVER_GONE = 255
"""multiprocessing's exit code for a fork whose forkserver has died."""
_OUTSIDE_SIGNALS = (KILL, *STOP_SIGNALS)
_REAP_S = 10.0
_STARTS = 5
"""Attempts to start a forkserver that dies while it starts."""
_LONGEST_TMPDIR = 70
"""Bytes: the path of a Unix socket has at most 103 (macOS) or 107 (Linux), and multiprocessing appends 32."""
_SHORT_TMPDIRS = ("/tmp", "/var/tmp", "/dev/shm")
_PACKAGES = Path(__file__).resolve().parent.parent.parent
"""The folder fersweep is imported from."""


class TrialHandle:
    """One running trial, as its agent sees it: messages come out of ``pipe``, a stop goes in."""

    def __init__(self, process: BaseProcess, pipe: Connection, folder: Path, oom_kills: OomKills) -> None:
        self.process = process
        self.pipe = pipe
        self.folder = folder
        self._oom_kills = oom_kills
        self._oom_kills_before = oom_kills.unexplained()
        self._killed_by_agent = False

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
        """Have the trial stop at its next step, with a checkpoint if it is to be resumed."""
        with suppress(OSError):  # it has ended by itself: its outcome is in the pipe, or its exit code tells
            self.pipe.send(reason)

    def has_ended(self, timeout_s: float) -> bool:
        """Wait at most so long for the process to end."""
        self.process.join(max(0.0, timeout_s))
        return not self.process.is_alive()

    def kill(self) -> None:
        """Kill it; its files stay whole."""
        self._killed_by_agent = True
        self.process.kill()

    def abort(self) -> None:
        """Have it write a stack trace to trial.log and end; kill one that hangs in the kernel."""
        if self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGABRT)

    def close(self) -> None:
        """Reap the process, killed if it hangs at its exit, and close the pipe."""
        if not self.has_ended(_REAP_S):
            self.kill()
            self.process.join()
        self.pipe.close()
        self.process.close()

    def why_it_died(self) -> tuple[str, Cause | None]:
        """Reason and cause of an end without an outcome."""
        self.process.join()
        code = self.process.exitcode
        tail = _log_tail(self.folder / "trial.log")
        cause = Cause.KILLED if code == _FORKSERVER_GONE or -(code or 0) in _OUTSIDE_SIGNALS else None
        if code == _FORKSERVER_GONE:
            reason = "ended with the forkserver, which was killed"
        elif code is not None and code < 0:
            reason = f"ended by {signal.Signals(-code).name}"
        else:
            reason = f"ended with exit code {code} and no outcome"
        if code == -KILL and self._killed_by_agent:
            reason = f"{reason}, by its agent"
        elif code == -KILL and self._oom_kills.explain(self._oom_kills_before):
            reason, cause = f"{reason}, by the kernel: out of memory", Cause.OUT_OF_MEMORY
        elif code == -KILL:
            reason = f"{reason}, by a user, a scheduler or an out-of-memory daemon"
        elif cause is None and mentions_memory(tail):
            cause = Cause.OUT_OF_MEMORY
        return (f"{reason}; last lines of trial.log:\n{tail}" if tail else reason), cause


class Starter(Protocol):
    """How the process of a trial begins."""

    def warm_up(self) -> None:
        """Prepare in the background."""

    def start(self, job: TrialJob) -> TrialHandle:
        """Start a trial.

        Raises:
            AgentFailed: No process can be started.
        """

    def close(self) -> None:
        """Stop, after every trial has ended."""


def check_platform() -> None:
    """Raise AgentFailed on Windows, which has no fork."""
    if sys.platform == "win32":
        raise AgentFailed(
            "agents do not run on Windows yet: they start trials by fork",
            hint="run fersweep in WSL, or train one configuration at a time here: fersweep train --help",
        )


class TrialStarter:
    """The forkserver behind one agent's slots."""

    def __init__(self, models: Iterable[str] = tuple(ARCHITECTURES)) -> None:
        check_platform()
        self._context: Any = multiprocessing.get_context("forkserver")  # mypy knows of none on Windows
        self._oom_kills = OomKills()
        modules = [f"fer_sweep.models.{model}" for model in models]
        self._context.set_forkserver_preload([PRELOAD, *modules, run_in_fork.__module__])
        # transformers asks at import whether CUDA is available; NVML answers without a context that forks would share.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

    def warm_up(self) -> None:
        """Start the forkserver, which imports torch in the background."""
        with _surroundings():
            resource_tracker.ensure_running()
        with _surroundings():  # once more: the start of the resource tracker unblocks signals
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
            hint = "use fewer slots, or raise the limits of open files (ulimit -n) and processes (ulimit -u)"
            raise AgentFailed(f"no trial can be started: {error.strerror or error}", hint=hint) from error
        theirs.close()
        return TrialHandle(process, ours, job.folder, self._oom_kills)

    def _fork(self, job: TrialJob, pipe: Connection) -> BaseProcess:
        for _ in range(_STARTS):
            name = f"trial-{job.folder.name}"
            process: BaseProcess = self._context.Process(target=run_in_fork, args=(job, pipe), name=name)
            try:
                with _surroundings():
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


def _log_tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 10 * _LOG_TAIL))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # faulthandler lists every extension module, which is longer than all the rest.
    return "\n".join(line for line in lines if not line.startswith("Extension modules:")).strip()[-_LOG_TAIL:]


@contextmanager
def _surroundings() -> Iterator[None]:
    """What the forkserver and its forks inherit from this process: signals blocked, and none of the user's modules."""
    # A signal to the whole process group (Ctrl-C, a closed terminal, scancel) must end neither the forkserver, whose
    # forks would die with it, nor a fork in its first milliseconds. For the agent itself it only waits.
    with holding_back_signals(), _own_modules_only():
        yield


@contextmanager
def _own_modules_only() -> Iterator[None]:
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
