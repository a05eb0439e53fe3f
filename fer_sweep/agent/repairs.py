"""Runs that did not get through to the W&B server, brought up by ``fersweep sync`` as soon as the server answers again.

In a process of its own: wandb holds on to a run that it could not finish for as long as its process lives.
"""

import contextlib
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import IO

from fer_sweep.files import sweep_folder

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-c", "from fer_sweep.cli import main; main()")
LONGEST_S = 60.0
"""How long the end of an agent waits for a repair; what is left then waits for the next sync."""


@dataclass
class Repairs:
    """The trials of one sweep whose runs are not whole on the server."""

    sweep_id: str
    _left: set[str] = field(default_factory=set, init=False)
    _under_way: set[str] = field(default_factory=set, init=False)
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _log: "IO[bytes] | None" = field(default=None, init=False)

    def heard(self, trial_id: str, whole: bool) -> None:
        """A trial's run has ended: whole, which says that the server answers, or not."""
        if not whole:
            self._left.add(trial_id)
        elif self._is_idle():
            self._start()

    def finish(self) -> tuple[str, ...]:
        """Try what is left a last time; gives the trials whose runs still are not whole."""
        self._wait()
        if self._left:
            self._start()
            self._wait()
        return tuple(sorted(self._left))

    def _is_idle(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return False
        self._settle()
        return True

    def _start(self) -> None:
        if not self._left:
            return
        self._under_way, self._left = self._left, set()
        words = [word for trial in sorted(self._under_way) for word in ("--trial", trial)]
        try:
            self._log = (sweep_folder(self.sweep_id) / "sync.log").open("ab")
            environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
            self._process = subprocess.Popen(
                [*COMMAND, "sync", self.sweep_id, *words],
                env=environment,  # its own wandb service: ours still holds the run
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the agent
            )
        except OSError as error:
            log.warning("runs could not be brought up: %s", error)
            self._settle()

    def _wait(self) -> None:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LONGEST_S)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        self._settle()

    def _settle(self) -> None:
        if self._process is None or self._process.returncode != 0:
            self._left |= self._under_way
        self._under_way, self._process = set(), None
        if self._log is not None:
            self._log.close()
            self._log = None
