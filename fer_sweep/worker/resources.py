"""Memory and cores of this host, container or job, and the limits that a trial's process sets for itself."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""In control groups of version 2 and 1: the limit, the usage, and in memory.stat the file pages among it; bytes."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""glibc's names for mallopt."""
_OOM_SCORE = 800
"""Of at most 1,000."""


def total_mb() -> float:
    """Megabytes of memory that this host, container or job has."""
    total: int = psutil.virtual_memory().total
    return min([total, *(limit for limit, _ in _memory_limits())]) / 2**20


def free_host_mb() -> float:
    """Megabytes of memory that are free in this host, container or job."""
    available: int = psutil.virtual_memory().available
    return min([available, *(free for _, free in _memory_limits())]) / 2**20


def control_groups(controller: str) -> Sequence[Path]:
    """The folders of the control groups that limit this process's ``memory`` or ``cpu``, its own group first.

    The tightest limit counts. psutil knows only the host. Linux only.
    """
    mount, path = _CGROUPS, "/"
    with contextlib.suppress(OSError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, of_line = line.split(":", 2)
            if controller in controllers.split(","):  # version 1 mounts each controller by itself
                mount, path = _CGROUPS / controller, of_line
                break
            if not controllers:
                path = of_line
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # outside the root of its namespace
        parts = []
    folders = [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    # A container may be told the host's path though only its own group is mounted, as the outermost.
    return [folder for folder in folders if folder.is_dir()]


def granted_cores() -> float | None:
    """Cores' worth of time that the control groups' quotas grant this process; None without a quota."""
    granted = []
    for group in control_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # version 2; "max" without a quota
            quota, period = (group / "cpu.max").read_text().split()
            granted.append(int(quota) / int(period))
        of_version_1, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if of_version_1 and period_us and of_version_1 > 0:  # -1 without a quota
            granted.append(of_version_1 / period_us)
    return min(granted, default=None)


class OomKills:
    """Out-of-memory kills by the kernel. Each explains the end of one process."""

    def __init__(self) -> None:
        self._explained = 0

    def unexplained(self) -> int:
        """How many explain no end yet."""
        return oom_kills() - self._explained

    def explain(self, unexplained_before: int) -> bool:
        """Whether one since the process started, when so many were unexplained, explains its end by SIGKILL."""
        explains = self.unexplained() > unexplained_before
        self._explained += explains
        return explains


def oom_kills() -> int:
    """How many processes the kernel has killed here because memory ran out. Linux only."""
    # The group's own count first: the host's includes all other groups.
    of_groups = [group / name for group in control_groups("memory") for name in ("memory.events", "memory.oom_control")]
    counts = (_number(file, "oom_kill") for file in (*of_groups, Path("/proc/vmstat")))
    return next((count for count in counts if count is not None), 0)


def be_killed_first() -> None:
    """Have the kernel kill this process before the agent when memory runs out. Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def keep_freed_memory() -> None:
    """Have this process keep the memory it frees. glibc only.

    glibc returns every large block to the kernel as soon as it is freed, and each step pays for the page faults of
    allocating it again. Kept, a step of batch 256 takes a half (SimpleCNN) to three quarters (ResNet18) of the time,
    for a tenth more memory.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def limit_memory(share: float) -> None:
    """Have allocations of this process fail beyond a share, in (0, 1], of all memory. Linux only."""
    if sys.platform == "linux":
        import resource  # does not exist on Windows

        # What the forkserver has imported counts for every fork, though its pages are shared.
        limit = psutil.Process().memory_info().data + int(share * total_mb() * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def send_output_to(log: Path) -> None:
    """Append what this process prints to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Limit and free memory of each control group that has a limit, in bytes."""
    for group in control_groups("memory"):
        for limit_file, usage_file, file_pages in _MEMORY_FILES:
            limit, usage = _number(group / limit_file), _number(group / usage_file)
            if limit is not None and usage is not None:
                # File pages count as used, though the kernel frees them on demand.
                yield limit, limit - usage + (_number(group / "memory.stat", file_pages) or 0)


def _number(file: Path, key: str | None = None) -> int | None:
    """The number in a file, or of its line with this key; None if there is none, as in "max" for no limit."""
    with contextlib.suppress(OSError, ValueError):
        for words in (line.split() for line in file.read_text().splitlines()):
            if key is None or words[0] == key:
                return int(words[-1])
    return None
