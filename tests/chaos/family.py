"""The processes of a chaos run: all that are below this one, told apart, remembered, and signalled without mistaking.

This process takes in the orphans of its descendants (Linux's child subreaper), so that none of them can slip away to
the system's first process; whatever was ever below it is found again, and must be gone in the end.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Process:
    """One process, which no other can be taken for: ids are used again, ids with a start time are not."""

    pid: int
    started: str
    """Clock ticks since the system's start."""
    kind: str
    """agent, forkserver, trial, tracker (of multiprocessing's resources), service (wandb's), sync, or other."""

    @property
    def is_alive(self) -> bool:
        """Whether it is still there, a zombie that only waits to be reaped left out."""
        return _start_time(self.pid) == self.started

    @property
    def trial(self) -> str | None:
        """The trial whose log it writes."""
        with contextlib.suppress(OSError):
            log = Path(f"/proc/{self.pid}/fd/1").readlink()
            return log.parent.name if log.name == "trial.log" else None
        return None

    def send(self, number: signal.Signals) -> bool:
        """Signal this process and no other; whether it was there."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The handle stays with whoever had the id when it was opened, so the check holds until the signal is sent.
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)

    def __str__(self) -> str:
        return f"{self.kind} {self.pid}"


class Family:
    """Every process ever seen below this one; a thread keeps looking."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], Process] = {}
        self._parents: dict[Process, Process | None] = {}
        self._ours: set[int] = set()
        """Ids of our own children, agents and other commands, until they are reaped."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="family", daemon=True)

    def __enter__(self) -> "Family":
        _take_in_orphans(True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        for process in self.alive():
            process.send(signal.SIGKILL)
        _take_in_orphans(False)

    def start(self, words: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        """Start a process of our own; every other child of ours is an orphan of the family."""
        with self._lock:  # no look falls between the start and the note of it
            started = subprocess.Popen(words, text=True, **options)
            self._ours.add(started.pid)
        return started

    def take_up(self, agent: "subprocess.Popen[str]") -> Process:
        """Count an agent, started by ``start``, and all that is below it to the family."""
        with self._lock:
            process = Process(agent.pid, _start_time(agent.pid, dead_too=True) or "", "agent")
            self._seen[agent.pid, process.started] = process
        return process

    def reaped(self, started: "subprocess.Popen[str]") -> None:
        """A process of ours has ended: its id may be anybody's now."""
        with self._lock:
            self._ours.discard(started.pid)

    def below(self, agent: Process, kind: str | None = None) -> list[Process]:
        """Living descendants of an agent, of one kind or of any."""
        self.look()
        with self._lock:
            found = [process for process in self._seen.values() if self._is_below(process, agent)]
        return [process for process in found if kind in (None, process.kind) and process.is_alive]

    def alive(self) -> list[Process]:
        """Everything of the family that is still there."""
        self.look()
        with self._lock:
            seen = list(self._seen.values())
        return [process for process in seen if process.is_alive]

    @property
    def count(self) -> int:
        """Processes seen so far."""
        return len(self._seen)

    def look(self) -> None:
        """Find what is new, and reap what has been taken in and has ended."""
        with self._lock:
            for child in _children(os.getpid()):
                known = self._known(child)
                if child not in self._ours:
                    known = known or self._note(child, None)
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(child, os.WNOHANG)
                if known is not None:
                    self._look_below(known)

    def _known(self, pid: int) -> Process | None:
        started = _start_time(pid, dead_too=True)
        return None if started is None else self._seen.get((pid, started))

    def _note(self, pid: int, parent: Process | None) -> Process | None:
        started = _start_time(pid)
        if started is None:
            return None
        process = self._seen.get((pid, started))
        if process is None or process.kind == "other":  # one just forked has its parent's words until it executes
            process = Process(pid, started, _kind(pid, parent))
            self._seen[pid, started] = process
            self._parents[process] = parent
        return process

    def _look_below(self, parent: Process) -> None:
        for pid in _children(parent.pid):
            process = self._note(pid, parent)
            if process is not None:
                self._look_below(process)

    def _is_below(self, process: Process, agent: Process) -> bool:
        parent = self._parents.get(process)
        return parent is not None and (parent == agent or self._is_below(parent, agent))

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            self.look()


def _kind(pid: int, parent: Process | None) -> str:
    words = _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")
    if parent is not None and parent.kind in ("forkserver", "trial"):
        return "trial"
    kinds = {
        "multiprocessing.forkserver": "forkserver",
        "resource_tracker": "tracker",
        "wandb-core": "service",
        " sync ": "sync",
    }
    return next((kind for word, kind in kinds.items() if word in words), "other")


def _children(pid: int) -> Iterator[int]:
    # Listed by the thread that started them.
    for thread in _names(Path(f"/proc/{pid}/task")):
        for child in _read(Path(f"/proc/{pid}/task/{thread}/children")).split():
            yield int(child)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _start_time(pid: int, *, dead_too: bool = False) -> str | None:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if not fields or (fields[0] in "ZX" and not dead_too):
        return None
    return fields[19]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _take_in_orphans(on: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
