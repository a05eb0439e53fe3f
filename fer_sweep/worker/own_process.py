"""What a trial's process arranges for itself before it trains: output, memory, and the order of dying."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

from fer_sweep.worker.memory import total_mb

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""glibc's names for mallopt."""
_OOM_SCORE = 800
"""Of at most 1,000."""


def go_before_the_agent() -> None:
    """Where the kernel must end a process for want of memory, let it take this one. Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def keep_freed_memory() -> None:
    """Have this process keep the memory it frees, on glibc; elsewhere nothing happens.

    glibc gives every large block back to the kernel as soon as it is freed, and each step pays for the page faults of
    getting it again. Kept, a step of batch 256 takes a half (SimpleCNN) to three quarters (ResNet18) of the time, for a
    tenth more memory.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def keep_to_share(share: float) -> None:
    """Have this process run out of memory by itself, and not with the others here, where it takes more than a share."""
    total = total_mb()
    taken = _data_mb()
    if total is not None and taken is not None:
        # What the forkserver has imported counts for every fork, though its pages are shared.
        limit = int((taken + share * total) * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _data_mb() -> float | None:
    """What RLIMIT_DATA is held against, as the kernel counts it now; None where it does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return None


def send_output_to(log: Path) -> None:
    """Append what this process prints to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
