"""Agents that are kept at work: when one ends, another takes its place."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.family import Family, send, trials_below
from tests.support.processes import COMMAND

DONE, FAILED, NOTHING_TO_DO, INTERRUPTED = 0, 1, 3, 130
_NO_SERVER = re.compile("error: (no answer from the W&B server|the W&B server .* answered)")
_LAST_LINES = 15


@dataclass
class Seat:
    """One agent's place; who sits there changes."""

    name: str
    sweep: str
    family: Family
    environment: Mapping[str, str]
    folder: Path
    cores: set[int]
    agent: psutil.Process | None = None
    starts: int = 0
    without_server: int = 0
    """Agents that found no server when they started, said so, and ended."""
    failures: list[str] = field(default_factory=list)
    """Wrong exit codes of agents that had no signal."""
    _popen: "subprocess.Popen[str] | None" = None
    _due: float = 0.0
    _expected: set[int] = field(default_factory=set)
    """Exit codes of an agent that was signalled."""

    def tend(self, *, may_start: bool) -> None:
        """See whether the agent has ended, and start the next one when it is due."""
        if self._popen is not None and (code := self._popen.poll()) is not None:
            self.family.ended(self._popen)
            self._popen, self.agent = None, None
            said = self._log().read_text(errors="replace")
            if code == FAILED and _NO_SERVER.search(said) and "cpu0: trial" not in said:
                self.without_server += 1
            elif code not in self._expected | {DONE, NOTHING_TO_DO}:
                last = "\n".join(said.splitlines()[-_LAST_LINES:])
                self.failures.append(f"agent {self.name} ended by itself with code {code}:\n{last}")
            if not self._expected:
                self._due = time.monotonic() + 1.0  # the next one may find nothing to do until leases expire
        if self._popen is None and may_start and time.monotonic() >= self._due:
            self._start()

    def _start(self) -> None:
        self.starts += 1
        self._expected = set()
        with self._log().open("w") as log, on_cores(self.cores):  # the same number of threads for each trial
            self._popen = self.family.start(
                [*COMMAND, "agent", self.sweep, "--gpus", "none", "--slots", str(len(self.cores))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                cwd=self.folder,
                process_group=0,
            )
        self.agent = psutil.Process(self._popen.pid)

    def signal(self, number: signal.Signals, *, group: bool = False, restart_after_s: float = 0.0) -> None:
        """Signal the agent, alone or with its process group, and have another one follow it."""
        self._expected = {-number} if number == signal.SIGKILL else {INTERRUPTED, -number}
        self._due = time.monotonic() + restart_after_s
        if self._popen is None or self.agent is None or self._popen.poll() is not None:
            return
        if group:
            os.killpg(self._popen.pid, number)  # it is not reaped, so the group's id is still its own
        else:
            send(self.agent, number)

    def start_next(self) -> None:
        """Wait for the end of the agent, which was killed, and start another at once."""
        if self._popen is not None:
            self._popen.wait()
        self.tend(may_start=True)

    def trials(self) -> frozenset[str]:
        """What the agent's living forks train."""
        return trials_below(self.agent) if self.agent else frozenset()

    def _log(self) -> Path:
        return self.folder / f"agent-{self.name}-{self.starts}.log"


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Run the block, and what it starts, on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
