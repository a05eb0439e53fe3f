"""The agent's end of a trial: its pipe, and how its process ended."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from fer_sweep.host_processes import KILL, STOP_SIGNALS
from fer_sweep.records import Cause, StopReason
from fer_sweep.worker.resources import OomKills
from fer_sweep.worker.trial_process import TrialMessage, mentions_memory

_LOG_TAIL = 2000
"""Characters of trial.log in the reason of a failure."""
_FORKSERVER_GONE = 255
"""multiprocessing's exit code for a fork whose forkserver has died."""
_OUTSIDE_SIGNALS = (KILL, *STOP_SIGNALS)
_REAP_S = 10.0


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
        """Have it write a stack trace to trial.log and end; Windows has no signal for that and ends it at once."""
        if sys.platform == "win32":
            self.kill()
        elif self.process.pid is not None:
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
