"""Agents that are kept at work, and the processes below them."""

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

from tests.support.processes import COMMAND

DONE, FAILED, NOTHING_TO_DO, INTERRUPTED = 0, 1, 3, 130
_NO_SERVER = re.compile("error: (no answer from the W&B server|the W&B server .* answered)")


@dataclass
class Seat:
    """One agent's place: when the agent ends, another takes it."""

    name: str
    sweep: str
    environment: Mapping[str, str]
    folder: Path
    cores: set[int]
    starts: int = 0
    failures: list[str] = field(default_factory=list)
    """Wrong exit codes of agents that had no signal."""
    _agent: "subprocess.Popen[bytes] | None" = None
    _due: float = 0.0
    """When the next one starts, by the monotonic clock."""
    _expected: set[int] = field(default_factory=set)
    """Exit codes of an agent that was signalled."""

    @property
    def agent(self) -> psutil.Process | None:
        """The agent at work, if there is one."""
        return psutil.Process(self._agent.pid) if self._agent is not None and self._agent.poll() is None else None

    def tend(self, *, may_start: bool) -> None:
        """See whether the agent has ended, and start the next one when it is due."""
        if self._agent is not None and (code := self._agent.poll()) is not None:
            self._agent = None
            said = self._log().read_text(errors="replace")
            found_no_server = code == FAILED and _NO_SERVER.search(said) and "cpu0: trial" not in said
            if not found_no_server and code not in self._expected | {DONE, NOTHING_TO_DO}:
                last = "\n".join(said.splitlines()[-15:])
                self.failures.append(f"agent {self.name} ended by itself with code {code}:\n{last}")
            if not self._expected:
                self._due = time.monotonic() + 1.0  # the next one may find nothing to do until leases expire
        if self._agent is None and may_start and time.monotonic() >= self._due:
            self._start()

    def signal(self, number: signal.Signals, *, group: bool = False, restart_after_s: float = 0.0) -> None:
        """Signal the agent, alone or with its process group, and have another one follow it."""
        self._expected = {-number} if number == signal.SIGKILL else {INTERRUPTED, -number}
        self._due = time.monotonic() + restart_after_s
        if self._agent is not None and self._agent.poll() is None:  # not reaped, so its id is still its own
            (os.killpg if group else os.kill)(self._agent.pid, number)

    def _start(self) -> None:
        self.starts += 1
        self._expected = set()
        with self._log().open("w") as log, on_cores(self.cores):  # the same number of threads for each trial
            self._agent = subprocess.Popen(
                [*COMMAND, "agent", self.sweep, "--gpus", "none", "--slots", str(len(self.cores))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                cwd=self.folder,
                process_group=0,
            )

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


def below(agent: psutil.Process, kind: str) -> list[psutil.Process]:
    """The living ``trial``, ``forkserver`` or ``service`` (wandb's) processes below an agent."""
    try:
        found = agent.children(recursive=True)
    except psutil.Error:
        return []
    return sorted((process for process in found if kind_of(process) == kind), key=lambda process: process.pid)


def kind_of(process: psutil.Process) -> str | None:
    """What a process is, by its command line; a fork has that of its parent."""
    try:
        words, parent = " ".join(process.cmdline()), process.parent()
        if "multiprocessing.forkserver" in words:
            is_fork = parent is not None and parent.cmdline() == process.cmdline()
            return "trial" if is_fork else "forkserver"
        return "service" if "wandb-core" in words else None
    except psutil.Error:
        return None  # it has ended


def working_on(home: str) -> list[psutil.Process]:
    """Every living process that was started for this home, whatever has become of its parents."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FERSWEEP_HOME") == home and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Signal this process, unless it has ended; psutil refuses if its id is another's by now."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
