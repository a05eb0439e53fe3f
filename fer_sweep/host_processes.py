"""Processes of this host: how fersweep is started as one, ends with its parent, or is paused by a signal."""

import contextlib
import ctypes
import signal
import sys

import psutil

FERSWEEP = (sys.executable, "-P", "-c", "from fer_sweep.cli import main; main()")
"""fersweep in the Python of this process, wherever its console script lies; -P: no modules of the working directory."""
_PR_SET_PDEATHSIG = 1


def end_with_parent(how: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends. Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, how)


def is_paused(pid: int | None) -> bool:
    """Whether a process of this host is stopped by a signal (Ctrl-Z, SIGSTOP), to continue later."""
    with contextlib.suppress(psutil.Error):
        return pid is not None and psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False
