"""Processes of this host: how fersweep is started as one, ends with its parent, or is paused by somebody."""

import contextlib
import ctypes
import signal
import sys
from pathlib import Path

FERSWEEP = (sys.executable, "-P", "-c", "from fer_sweep.cli import main; main()")
"""fersweep in the Python of this process, wherever its console script lies; -P: no modules of the working directory."""
_PR_SET_PDEATHSIG = 1


def end_with_parent(how: signal.Signals) -> None:
    """Have this process told by a signal when the one that started it ends. Linux only; elsewhere it works on."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, how)


def is_paused(pid: int) -> bool:
    """Whether somebody has stopped a process of this host, to go on later; false where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] in (["T"], ["t"])
