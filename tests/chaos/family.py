"""The processes of a chaos run: told apart, signalled without mistaking one for another, and none of them lost.

This process adopts the orphans of its descendants (Linux's child subreaper): what was started below it stays below it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_FORKSERVER = "multiprocessing.forkserver"
_KINDS = {"resource_tracker": "tracker", "wandb-core": "service", " sync ": "sync"}
"""By a part of the command line."""


class Family:
    """All processes below this one."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        """Ids of our own children, until they are reaped; every other child is an orphan of the family."""

    def __enter__(self) -> "Family":
        _adopt_orphans(True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.alive():
            send(process, signal.SIGKILL)
        _adopt_orphans(False)

    def start(self, words: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        """Start a process that the caller reaps, and then reports as ``ended``."""
        started = subprocess.Popen(words, text=True, **options)
        self._ours.add(started.pid)
        return started

    def ended(self, started: "subprocess.Popen[str]") -> None:
        self._ours.discard(started.pid)

    def reap(self) -> None:
        """Reap orphans that have ended, as a system's first process does at once."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in self._ours:  # the others wait until its Popen has been asked
                    return
                os.waitpid(ended.si_pid, 0)

    def alive(self) -> list[psutil.Process]:
        """Everything that is still there."""
        self.reap()
        return list(below(psutil.Process()))


def below(parent: psutil.Process, kind: str | None = None) -> Iterator[psutil.Process]:
    """Living descendants, of one kind or of any, in the order of their ids."""
    with contextlib.suppress(psutil.Error):
        for process in sorted(parent.children(recursive=True), key=lambda process: process.pid):
            if is_alive(process) and kind in (None, kind_of(process)):
                yield process


def is_alive(process: psutil.Process) -> bool:
    """Whether it is there, and no zombie that waits to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kind_of(process: psutil.Process) -> str:
    """agent, forkserver, trial, tracker (of multiprocessing's resources), service (wandb's), sync, or other."""
    words = _words(process)
    if _FORKSERVER in words:  # a fork has the command line of its parent
        return "trial" if _FORKSERVER in _words(process.parent()) else "forkserver"
    return next((kind for word, kind in _KINDS.items() if word in words), "other")


def trial_of(process: psutil.Process) -> str | None:
    """The trial whose log it writes, as sweep/trial."""
    with contextlib.suppress(OSError):
        log = Path(f"/proc/{process.pid}/fd/1").readlink()
        return f"{log.parents[2].name}/{log.parent.name}" if log.name == "trial.log" else None
    return None


def trials_below(agent: psutil.Process) -> frozenset[str]:
    """What the living forks of an agent train."""
    return frozenset(trial for fork in below(agent, "trial") if (trial := trial_of(fork)))


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Signal this process, unless it has ended; psutil refuses if its id is another's by now."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _words(process: psutil.Process | None) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()) if process else ""
    return ""


def _adopt_orphans(on: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
