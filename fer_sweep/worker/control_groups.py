"""Control groups: what a container, a service or a job of Slurm's may have of its host. Linux only."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def control_groups(controller: str) -> Sequence[Path]:
    """The folders of the groups that bound this process in ``memory`` or ``cpu``: its own first, the outermost last.

    It has no more than the tightest of them. Folders of version 1 have files of other names than those of version 2.
    """
    mount, path = _membership(controller)
    within = [part for part in path.split("/") if part]
    if ".." in within:  # a namespace's root below which this process is not
        within = []
    folders = [mount.joinpath(*within[:depth]) for depth in range(len(within), -1, -1)]
    # Where a container has the host's names but sees its own group alone, that is mounted as the outermost.
    return [folder for folder in folders if folder.is_dir()]


def granted_cores() -> float | None:
    """How many cores' time the groups' quotas leave this process; None where there is none."""
    granted = []
    for group in control_groups("cpu"):
        # Without a quota version 2 says "max" and version 1 -1.
        with contextlib.suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            granted.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                granted.append(int(quota) / int(period))
    return min(granted, default=None)


def _membership(controller: str) -> tuple[Path, str]:
    """Where the controller's hierarchy is mounted, and the path of this process's group in it."""
    of_version_2 = "/"
    with contextlib.suppress(OSError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return _MOUNT / controller, path
            if not controllers:
                of_version_2 = path
    return _MOUNT, of_version_2
