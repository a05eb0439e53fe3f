"""Processes of this host: how fersweep is started as one, ends with its parent, or is paused; and the signals to it.

Which signals there are depends on the platform, so others take them from here.
"""

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator

import psutil

FERSWEEP = (sys.executable, "-P", "-c", "from fer_sweep.cli import main; main()")
"""fersweep in the Python of this process, wherever its console script lies; -P: no modules of the working directory."""
_PR_SET_PDEATHSIG = 1

# KILL: ends a process at once. On Windows any signal from another process does; multiprocessing reports it as SIGTERM.
# STOP_SIGNALS: of a scheduler or a closed terminal; on Windows of Ctrl-Break and a closed console. Checkpoint and stop.
# PREEMPT: the one of them that a stock ``wandb agent`` does not send.
if sys.platform == "win32":
    KILL = signal.SIGTERM
    STOP_SIGNALS = (signal.SIGTERM, signal.SIGBREAK)
    PREEMPT = signal.SIGBREAK
else:
    KILL = signal.SIGKILL
    STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    PREEMPT = signal.SIGUSR2


@contextlib.contextmanager
def holding_back_signals() -> Iterator[None]:
    """Block Ctrl-C and STOP_SIGNALS here and in processes that start meanwhile; Windows cannot block signals."""
    if sys.platform == "win32":
        yield
    else:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *STOP_SIGNALS))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def let_signals_through() -> None:
    """Unblock what ``holding_back_signals`` of the process that started this one has blocked."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, *STOP_SIGNALS))


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. Linux only."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_paused(pid: int | None) -> bool:
    """Whether a process of this host is stopped by a signal (Ctrl-Z, SIGSTOP), to continue later."""
    with contextlib.suppress(psutil.Error):
        return pid is not None and psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False
