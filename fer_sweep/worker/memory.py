"""Memory: how much is free for a slot, and whether one more trial fits."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from fer_sweep.worker.control_groups import control_groups
from fer_sweep.worker.slots import Slot

SCARCE = 0.05
"""Less than this part of the memory free, and whoever watches over it may end a process for want of it."""
CUDA_CONTEXT_MB = 600.0
"""What a process takes on a GPU beside its tensors."""


def free_mb(slot: Slot) -> float | None:
    """Megabytes free where a slot's trial would train: on its GPU, or in this host's or container's memory.

    None where that cannot be told.
    """
    return _free_on_gpu(slot.environment["CUDA_VISIBLE_DEVICES"]) if slot.device != "cpu" else _free_on_host()


class Admission:
    """Lets a trial start beside others only where there is room for one as large as the largest so far."""

    def __init__(self, free: Callable[[Slot], float | None] = free_mb) -> None:
        self._free = free
        self._needs: dict[bool, float] = {}
        """Megabytes of the largest trial so far, on GPUs (True) and on the CPU."""

    def learn(self, slot: Slot, peak_mb: float) -> None:
        """A trial of that slot took so much at its peak; on a GPU, for its tensors."""
        on_gpu = slot.device != "cpu"
        need = peak_mb + (CUDA_CONTEXT_MB if on_gpu else 0.0)
        self._needs[on_gpu] = max(need, self._needs.get(on_gpu, 0.0))

    def refusal(self, slot: Slot, growing: int) -> str | None:
        """Why no trial should start in a slot beside the ones that run there already; None if one may.

        Args:
            slot: Where it would start.
            growing: How many of the others have not finished an epoch, so that what they will take is not taken yet.
        """
        need = self._needs.get(slot.device != "cpu")
        free = None if need is None else self._free(slot)
        if need is None or free is None or free >= need * (1 + growing):
            return None
        return f"{free:,.0f} MB of memory are free, and a trial here has taken up to {need:,.0f}"


def _free_on_gpu(uuid: str) -> float | None:
    import pynvml  # optional at run time, as in gpus.py

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return float(pynvml.nvmlDeviceGetMemoryInfo(handle).free) / 2**20
    except pynvml.NVMLError:
        return None
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def total_mb() -> float | None:
    """Megabytes of memory this host or container has; None where that cannot be told."""
    limits = (_limit(group) for group in control_groups("memory"))
    return _least(_meminfo("MemTotal:"), *(None if limit is None else limit / 2**20 for limit in limits))


def oom_kills() -> int:
    """How often the kernel has ended a process here for want of memory; it tells nobody else."""
    # The group's own count first: the host's has that of all its neighbours in it.
    of_groups = [group / name for group in control_groups("memory") for name in ("memory.events", "memory.oom_control")]
    for counts in (*of_groups, Path("/proc/vmstat")):
        with contextlib.suppress(OSError, StopIteration):
            lines = counts.read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


class OomKills:
    """The kernel's kills for want of memory, each of which explains one process's end and no other's."""

    def __init__(self) -> None:
        self._explained = 0

    def unexplained(self) -> int:
        """How many there have been here that no end was put down to."""
        return oom_kills() - self._explained

    def explain(self, unexplained_before: int) -> bool:
        """Whether a process that died by SIGKILL died of one since there were so many; that one is then used up."""
        explains = self.unexplained() > unexplained_before
        self._explained += explains
        return explains


def shortage(pid: int) -> str | None:
    """How short of memory this host or container is, and what a process holds of it; None if it is not.

    Who ends processes then need not be the kernel, which counts them: schedulers and oomd do so too, and say nothing.
    """
    free, total = _free_on_host(), total_mb()
    if free is None or total is None or free >= SCARCE * total:
        return None
    held = _number_in(Path(f"/proc/{pid}/status"), "VmRSS:") or 0.0
    return f"{free:,.0f} of {total:,.0f} MB were free, and it held {held:,.0f}"


def _free_on_host() -> float | None:
    return _least(_meminfo("MemAvailable:"), *(_free_in(group) for group in control_groups("memory")))


def _least(*amounts: float | None) -> float | None:
    """Of those that are known; None if none is."""
    return min((amount for amount in amounts if amount is not None), default=None)


def _limit(group: Path) -> int | None:
    """Bytes that a control group may have; None if it has no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or no limit: "max", and far too many before that
            return int((group / name).read_text())
    return None


def _free_in(group: Path) -> float | None:
    """Megabytes that a control group has left; None if that cannot be told."""
    limit = _limit(group)
    for used, files in (("current", "inactive_file"), ("usage_in_bytes", "total_inactive_file")):
        with contextlib.suppress(OSError, ValueError, StopIteration):
            taken = int((group / f"memory.{used}").read_text())
            counted = (group / "memory.stat").read_text().splitlines()
            # File pages count as used there, though they are given up for the asking.
            given_up = next(int(line.split()[1]) for line in counted if line.startswith(f"{files} "))
            return None if limit is None else (limit - taken + given_up) / 2**20
    return None


def _meminfo(name: str) -> float | None:
    return _number_in(Path("/proc/meminfo"), name)


def _number_in(file: Path, name: str) -> float | None:
    """Megabytes, from a line that has so many kB."""
    try:
        lines = file.read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None  # not Linux
