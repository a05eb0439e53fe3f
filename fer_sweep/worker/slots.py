"""Slots: the places on this host where one trial trains at a time, and whether memory allows one more trial."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fer_sweep.errors import InputError
from fer_sweep.worker.gpus import Gpu, choose, discover, free_gpu_mb, visible_devices
from fer_sweep.worker.resources import free_host_mb, granted_cores

CUDA_CONTEXT_MB = 600.0
"""What a process takes on a GPU beside its tensors."""


@dataclass(frozen=True)
class Slot:
    """A GPU, a share of a GPU, or some CPU cores."""

    name: str
    """Such as ``gpu0``, ``gpu0/1`` or ``cpu1``."""
    device: str
    """What the training function gets: ``cuda:0`` or ``cpu``."""
    threads: int
    """CPU threads of the trial's process."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set in the trial's process before it touches CUDA."""


def make_slots(gpus: Sequence[Gpu], *, per_gpu: int = 1, cpu_slots: int | None = None) -> tuple[Slot, ...]:
    """Divide the host: ``per_gpu`` slots on each GPU, or without GPUs ``cpu_slots`` on its cores.

    Args:
        gpus: Those to use; empty for CPU slots.
        per_gpu: Slots sharing each GPU.
        cpu_slots: How many CPU slots; None takes one for every four cores, and at least one.

    Raises:
        InputError: Fewer than one slot, or more CPU slots than cores.
    """
    cores = usable_cores()
    if per_gpu < 1:
        raise InputError(f"--per-gpu {per_gpu}: at least 1")
    if gpus:
        if cpu_slots is not None:
            raise InputError("--slots divides CPU cores and goes with --gpus none", hint="on GPUs use --per-gpu N")
        threads = max(1, cores // (len(gpus) * per_gpu))
        return tuple(
            Slot(
                name=f"gpu{gpu.index}/{share}" if per_gpu > 1 else f"gpu{gpu.index}",
                device="cuda:0",
                threads=threads,
                environment={"CUDA_VISIBLE_DEVICES": gpu.uuid},
            )
            for gpu in gpus
            for share in range(per_gpu)
        )
    count = cpu_slots if cpu_slots is not None else max(1, cores // 4)
    if not 1 <= count <= cores:
        raise InputError(f"--slots {count}: this host has {cores} usable cores", hint=f"1 to {cores} slots")
    # Threads are dealt out so that none is left over: 8 cores over 3 slots give 3, 3 and 2.
    return tuple(
        Slot(
            name=f"cpu{number}",
            device="cpu",
            threads=cores // count + (number < cores % count),
            environment={"CUDA_VISIBLE_DEVICES": ""},
        )
        for number in range(count)
    )


def usable_cores() -> int:
    """CPU cores this process may use.

    The least of its affinity mask (Slurm, taskset), its control groups' quotas (Docker), and ``FERSWEEP_CORES``, a
    limit where nothing enforces one (Ray).

    Raises:
        InputError: FERSWEEP_CORES is not a positive number.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if granted := os.environ.get("FERSWEEP_CORES"):
        if not granted.isdecimal() or not int(granted):
            raise InputError(f"FERSWEEP_CORES={granted}: not a number of cores", hint="unset it to use all of them")
        cores = min(cores, int(granted))
    quota = granted_cores()
    return cores if quota is None else min(cores, max(1, int(quota)))


def one_slot(device: str, threads: int | None) -> Slot:
    """The slot that ``--device`` and ``--threads`` ask for.

    Args:
        device: ``auto``, ``cpu``, or a GPU's number or UUID.
        threads: CPU threads; None for all cores.

    Raises:
        InputError: There is no such device, or there are not so many cores.
    """
    gpus = () if device == "cpu" else choose(device, discover(), visible_devices(), option="--device")
    if len(gpus) > 1:
        if device != "auto":
            raise InputError(f"--device {device}: a trial trains on one device")
        gpus = gpus[:1]
    if threads is not None and threads > usable_cores():
        raise InputError(f"--threads {threads}: this host has {usable_cores()} usable cores")
    return make_slots(gpus, cpu_slots=None if gpus else 1)[0]


def free_mb(slot: Slot) -> float | None:
    """Megabytes free where a slot's trial would train: on its GPU, or in this host's or container's memory.

    None for an unknown GPU.
    """
    return free_host_mb() if slot.device == "cpu" else free_gpu_mb(slot.environment["CUDA_VISIBLE_DEVICES"])


class Admission:
    """Lets a trial start beside others only if one as large as the largest so far fits."""

    def __init__(self, free: Callable[[Slot], float | None] = free_mb) -> None:
        self._free = free
        self._needs: dict[bool, float] = {}
        """Megabytes of the largest trial so far, on GPUs (True) and on the CPU."""

    def learn(self, slot: Slot, peak_mb: float) -> None:
        """Record the peak memory of a trial; on a GPU, of its tensors."""
        on_gpu = slot.device != "cpu"
        need = peak_mb + (CUDA_CONTEXT_MB if on_gpu else 0.0)
        self._needs[on_gpu] = max(need, self._needs.get(on_gpu, 0.0))

    def refusal(self, slot: Slot, growing: int) -> str | None:
        """Why no trial should start in a slot now; None if one may.

        Args:
            slot: Where it would start.
            growing: How many trials beside it have not finished an epoch, so that their memory is not taken yet.
        """
        need = self._needs.get(slot.device != "cpu")
        free = None if need is None else self._free(slot)
        if need is None or free is None or free >= need * (1 + growing):
            return None
        return f"{free:,.0f} MB of memory are free, and a trial has taken up to {need:,.0f}"
