"""One agent as a process of this host: what a local pool starts, and what an actor of Ray runs on its node.

The class travels to Ray's nodes pickled by value and imports the standard library only: the Python that Ray starts on a
node need not have fersweep, as long as the one that ``command`` names has it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# An agent must end with what started it. The actor of a node that the cluster has lost ends, and another agent will
# lease the trials.
_LAUNCH = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if os.getppid() != int(sys.argv[1]):
    sys.exit(130)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be started: {error.strerror}")
"""


class AgentProcess:
    """Runs one agent. All methods return at once, so that Ray can call them in one thread; the first is ``start``."""

    def start(self, words: Sequence[str], environment: Mapping[str, str], folder: str, log: str, title: str) -> str:
        """Start a command in a folder; returns the name of its host.

        Args:
            words: The command.
            environment: Overrides the environment of this process.
            folder: Its working directory.
            log: Its log file, which is appended to.
            title: The heading of this start in the log.

        Raises:
            OSError: The folder is not found, or the log cannot be written.
        """
        host = socket.gethostname()
        with Path(log).open("ab", buffering=0) as output:
            try:
                output.write(f"== {title}, on {host} at {time.strftime('%F %T')}\n".encode())
            except OSError as error:  # the error of a full disk names no file
                raise OSError(error.errno, error.strerror, log) from None
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                cwd=folder,
                start_new_session=True,  # Ctrl-C is not for it, and it and its trials can be killed together
            )
        return host

    def poll(self) -> int | None:
        """The agent's exit code; None while it runs."""
        return self._process.poll()

    def tell(self, number: int) -> None:
        """Send the agent a signal; SIGKILL also kills its trials."""
        if self._process.poll() is not None:
            return
        if sys.platform != "win32" and number == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
