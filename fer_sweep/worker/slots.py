"""Slots: the places on this host where one trial trains at a time, and whether memory allows one more trial.

NVIDIA's GPUs are found by NVML, Apple's (MPS) by the platform: no device is touched and no framework imported.
"""

import contextlib
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pynvml

from fer_sweep.errors import InputError
from fer_sweep.worker.resources import free_host_mb, granted_cores, total_mb

log = logging.getLogger(__name__)

MPS = "mps"
"""Apple's GPU: its slot, its device as torch names it, and what ``--gpus`` and ``--device`` call it."""
CUDA_CONTEXT_MB = 600.0
"""What a process takes on a GPU beside its tensors. On Apple's, whose memory is the host's: the interpreter, torch."""
_NO_DRIVER = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of one, or Apple's GPU."""

    uuid: str
    """``GPU-...`` or ``MIG-...``: what CUDA_VISIBLE_DEVICES accepts however other devices come and go. Or MPS."""
    index: str
    """NVML's number, ``0``, or ``0:1`` for the second MIG instance of GPU 0. Or MPS."""
    name: str
    memory_mb: int

    @property
    def is_mps(self) -> bool:
        """Whether it is Apple's."""
        return self.uuid == MPS


@dataclass(frozen=True)
class Slot:
    """A GPU, a share of a GPU, or some CPU cores."""

    name: str
    """Such as ``gpu0``, ``gpu0/1``, ``mps`` or ``cpu1``."""
    device: str
    """What the training function gets: ``cuda:0``, ``mps`` or ``cpu``."""
    threads: int
    """CPU threads of the trial's process."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set in the trial's process before it touches a GPU."""


def discover(note: Callable[[str], None] = log.warning) -> tuple[Gpu, ...]:
    """Every GPU that NVML shows, by number, or else Apple's; a GPU in MIG mode gives its instances instead of itself.

    ``note`` gets a line about each GPU that cannot be used, and about a driver that does not work.
    """
    found: list[Gpu] = []
    try:
        with _nvml():
            for number in range(pynvml.nvmlDeviceGetCount()):
                try:
                    found += _at(number)
                except pynvml.NVMLError as error:
                    note(f"GPU {number} is left out: {error}")
    except pynvml.NVMLError as error:
        if error.value not in _NO_DRIVER:
            note(f"no GPU can be used, the NVIDIA driver reports: {error}")
    if not found and sys.platform == "darwin" and platform.machine() == "arm64":
        found.append(Gpu(MPS, MPS, "Apple GPU", int(total_mb())))
    return tuple(found)


def described() -> list[str]:
    """The GPUs of this host in words, for reports."""
    return [f"{gpu.name}, {gpu.memory_mb:,} MB" for gpu in discover()]


def free_gpu_mb(uuid: str) -> float | None:
    """Megabytes of memory free on a GPU; None where NVML does not know it."""
    with contextlib.suppress(pynvml.NVMLError), _nvml():
        return float(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid)).free) / 2**20
    return None


def gpus_here(wanted: str, *, option: str = "gpus", note: Callable[[str], None] = log.warning) -> tuple[Gpu, ...]:
    """The GPUs of this host that ``wanted`` names; see ``choose``."""
    if wanted == "none":
        return ()
    return choose(wanted, discover(note), os.environ.get("CUDA_VISIBLE_DEVICES"), option=option)


def choose(wanted: str, present: Sequence[Gpu], visible: str | None = None, *, option: str = "gpus") -> tuple[Gpu, ...]:
    """The GPUs, of those present, that ``--gpus`` names.

    Args:
        wanted: ``auto`` (all there are), or numbers and UUIDs (or unique prefixes of them), separated by commas; or
            ``mps``.
        present: What ``discover`` found.
        visible: CUDA_VISIBLE_DEVICES; numbers and ``auto`` then count within it, as every CUDA program does. Of an
            Apple GPU only ``auto`` heeds it: set to nothing, as to hide NVIDIA's, it leaves the CPU.
        option: The option or argument, for error messages.
    """
    usable = tuple(present) if visible is None else _visible(visible, present)
    if wanted == "auto":
        return usable
    chosen: list[Gpu] = []
    for word in (part.strip() for part in wanted.split(",")):
        gpu = _find(word, present if word == MPS else usable, by_place=visible is not None)
        if gpu is None:
            known = ", ".join(g.index if g.is_mps else f"{g.index} ({g.uuid})" for g in usable) or "none"
            cpu = f"{option} {'cpu' if option == 'device' else 'none'} trains on the CPU"
            hint = None if usable else f"{cpu}; if the host has an NVIDIA GPU, check that nvidia-smi lists it"
            if word == MPS:
                hint = f"{MPS} is the GPU of a Mac with Apple silicon, under a Python built for arm64; {cpu}"
            raise InputError(f"{option} {wanted}: unknown GPU {word!r}; this host has: {known}", hint=hint)
        if gpu in chosen:
            raise InputError(
                f"{option} {wanted}: GPU {word!r} is named twice", hint="for several slots on one GPU: per_gpu"
            )
        chosen.append(gpu)
    return tuple(chosen)


def make_slots(gpus: Sequence[Gpu], *, per_gpu: int = 1, cpu_slots: int | None = None) -> tuple[Slot, ...]:
    """Divide the host: ``per_gpu`` slots on each GPU, or without GPUs ``cpu_slots`` on its cores.

    Args:
        gpus: Those to use; empty for CPU slots.
        per_gpu: Slots sharing each GPU.
        cpu_slots: How many CPU slots; None takes one for every four cores, and at least one.
    """
    cores = usable_cores()
    if per_gpu < 1:
        raise InputError(f"per_gpu {per_gpu}: at least 1")
    if gpus:
        if cpu_slots is not None:
            raise InputError("slots divide CPU cores and go with gpus none", hint="on GPUs use per_gpu")
        threads = max(1, cores // (len(gpus) * per_gpu))
        return tuple(
            Slot(f"{name}/{share}" if per_gpu > 1 else name, device, threads, environment)
            for name, device, environment in map(_placed, gpus)
            for share in range(per_gpu)
        )
    count = cpu_slots if cpu_slots is not None else max(1, cores // 4)
    if not 1 <= count <= cores:
        raise InputError(f"slots {count}: this host has {cores} usable cores", hint=f"1 to {cores} slots")
    # Threads are dealt out so that none is left over: 8 cores over 3 slots give 3, 3 and 2.
    return tuple(
        Slot(f"cpu{number}", "cpu", cores // count + (number < cores % count), {"CUDA_VISIBLE_DEVICES": ""})
        for number in range(count)
    )


def _placed(gpu: Gpu) -> tuple[str, str, Mapping[str, str]]:
    """Name, device and environment of a slot on a GPU."""
    if gpu.is_mps:
        # What has no kernel there is computed on the CPU. torch reads it at its import.
        return MPS, MPS, {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
    return f"gpu{gpu.index}", "cuda:0", {"CUDA_VISIBLE_DEVICES": gpu.uuid}


def usable_cores() -> int:
    """CPU cores this process may use.

    The least of its affinity mask (Slurm, taskset), its control groups' quotas (Docker), and ``FERSWEEP_CORES``, a
    limit where nothing enforces one (Ray).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if granted := os.environ.get("FERSWEEP_CORES"):
        if not granted.isdecimal() or not int(granted):
            raise InputError(f"FERSWEEP_CORES={granted}: not a number of cores", hint="unset it to use all of them")
        cores = min(cores, int(granted))
    quota = granted_cores()
    return cores if quota is None else min(cores, max(1, int(quota)))


def one_slot(device: str, threads: int | None) -> Slot:
    """The slot that ``--device`` (``auto``, ``cpu``, ``mps``, a GPU's number or UUID) and ``--threads`` ask for."""
    gpus = () if device == "cpu" else gpus_here(device, option="device")
    if len(gpus) > 1 and device != "auto":
        raise InputError(f"device {device}: a trial trains on one device")
    if threads is not None and threads > usable_cores():
        raise InputError(f"threads {threads}: this host has {usable_cores()} usable cores")
    return make_slots(gpus[:1], cpu_slots=None if gpus else 1)[0]


def free_mb(slot: Slot) -> float | None:
    """Megabytes free where a slot's trial would train; None for an unknown GPU."""
    if slot.device in ("cpu", MPS):  # Apple's GPU has the host's memory
        return free_host_mb()
    return free_gpu_mb(slot.environment["CUDA_VISIBLE_DEVICES"])


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

        ``growing`` trials beside it have not finished an epoch: their memory is not taken yet.
        """
        need = self._needs.get(slot.device != "cpu")
        free = None if need is None else self._free(slot)
        if need is None or free is None or free >= need * (1 + growing):
            return None
        return f"{free:,.0f} MB of memory are free, and a trial has taken up to {need:,.0f}"


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _at(number: int) -> list[Gpu]:
    """The GPU with a number, or its MIG instances."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    instances = list(_mig_instances(handle))
    if instances:
        return [_describe(part, f"{number}:{place}") for place, part in enumerate(instances)]
    return [_describe(handle, str(number))]


def _mig_instances(handle: Any) -> Iterator[Any]:
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
        count = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:
        return  # it has no MIG mode
    if current != pynvml.NVML_DEVICE_MIG_ENABLE:
        return
    for place in range(count):
        with contextlib.suppress(pynvml.NVMLError):  # fewer are set up than there can be
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)


def _describe(handle: Any, index: str) -> Gpu:
    return Gpu(
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_mb=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // 2**20,
    )


def _visible(visible: str, present: Sequence[Gpu]) -> tuple[Gpu, ...]:
    # CUDA's own rule: the list ends at the first entry that names no device.
    usable: list[Gpu] = []
    for word in (part.strip() for part in visible.split(",")):
        gpu = _find(word, present, by_place=False)
        if gpu is None:
            break
        usable.append(gpu)
    return tuple(usable)


def _find(word: str, gpus: Sequence[Gpu], *, by_place: bool) -> Gpu | None:
    if by_place and word.isdigit():
        return gpus[int(word)] if int(word) < len(gpus) else None
    for gpu in gpus:
        if word in (gpu.index, gpu.uuid):
            return gpu
    alike = [gpu for gpu in gpus if len(word) > len("GPU-") and gpu.uuid.startswith(word)]
    return alike[0] if len(alike) == 1 else None
