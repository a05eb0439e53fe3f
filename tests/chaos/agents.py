"""Agents that are kept at work: whatever ends one, another takes its place."""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.family import Family, Process
from tests.support.processes import COMMAND

DONE, FAILED, NOTHING_TO_DO, INTERRUPTED = 0, 1, 3, 130
_NO_SERVER = re.compile("error: (no answer from the W&B server|the W&B server .* answered)")
_LAST_LINES = 15


@dataclass(frozen=True)
class Ended:
    """How one agent ended."""

    code: int
    wanted: bool
    """Killed or told to end by the monkey, or by itself as an agent should."""
    said: str
    """The last lines of what it said."""


@dataclass
class Seat:
    """One agent's place; who sits there changes."""

    name: str
    sweep: str
    family: Family
    environment: Mapping[str, str]
    folder: Path
    cores: set[int]
    rng: random.Random
    agent: Process | None = None
    ended: list[Ended] = field(default_factory=list)
    starts: int = 0
    without_server: int = 0
    """Agents that found no server when they started, said so, and ended."""
    _popen: "subprocess.Popen[str] | None" = None
    _due: float = 0.0
    _wanted: set[int] = field(default_factory=set)

    def tend(self, *, may_start: bool) -> None:
        """See whether the agent has ended, and start the next one when it is due."""
        if self._popen is not None and (code := self._popen.poll()) is not None:
            self.family.reaped(self._popen)
            said = self._last_lines()
            if code == FAILED and _NO_SERVER.search(said) and "cpu0: trial" not in said:
                self.without_server += 1
            else:
                self.ended.append(Ended(code, code in self._wanted | {DONE, NOTHING_TO_DO}, said))
            if not self._wanted:
                self._due = time.monotonic() + 1.0  # what the sweep still has is in other hands for a lease's time
            self._popen, self.agent = None, None
        if self._popen is None and may_start and time.monotonic() >= self._due:
            self.start()

    def start(self) -> None:
        """Start an agent here and now."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)  # inherited; as many cores give as many threads a trial, whoever trains it
        try:
            with self._log(self.starts).open("w") as log:
                self._popen = self.family.start(
                    [*COMMAND, "agent", self.sweep, "--gpus", "none", "--slots", str(len(self.cores))],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(self.environment),
                    cwd=self.folder,
                    process_group=0,
                )
        finally:
            os.sched_setaffinity(0, before)
        self.agent = self.family.take_up(self._popen)
        self.starts += 1
        self._wanted = set()

    def send(self, number: signal.Signals, *, restart_after_s: float) -> None:
        """Signal the agent alone, and have another one follow it so many seconds from now."""
        self._expect(number, restart_after_s)
        if self.agent is not None:
            self.agent.send(number)

    def send_to_group(self, number: signal.Signals, *, restart_after_s: float) -> None:
        """Signal the agent and all that is in its process group."""
        self._expect(number, restart_after_s)
        if self._popen is not None and self._popen.poll() is None:  # not reaped, so the group's id is still its own
            os.killpg(self._popen.pid, number)

    def start_next(self) -> None:
        """Wait for the end of the agent, which was killed, and start another at once."""
        if self._popen is not None:
            self._popen.wait(30)
        self.tend(may_start=True)

    def trials(self) -> frozenset[str]:
        """What the agent's living forks train."""
        if self.agent is None:
            return frozenset()
        return frozenset(trial for fork in self.family.below(self.agent, "trial") if (trial := fork.trial))

    def _expect(self, number: signal.Signals, restart_after_s: float) -> None:
        if number in (signal.SIGSTOP, signal.SIGCONT):
            return
        self._wanted = {-number} if number == signal.SIGKILL else {INTERRUPTED, -number}
        self._due = time.monotonic() + restart_after_s

    def _log(self, number: int) -> Path:
        return self.folder / f"agent-{self.name}-{number}.log"

    def _last_lines(self) -> str:
        return "\n".join(self._log(self.starts - 1).read_text(errors="replace").splitlines()[-_LAST_LINES:])
