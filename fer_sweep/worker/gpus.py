"""The GPUs of this host, by NVML: no CUDA context is created and no framework imported."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pynvml

from fer_sweep.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of one."""

    uuid: str
    """``GPU-...`` or ``MIG-...``: what CUDA_VISIBLE_DEVICES accepts however other devices come and go."""
    index: str
    """NVML's number, ``0``, or ``0:1`` for the second MIG instance of GPU 0."""
    name: str
    memory_mb: int


def described() -> list[str]:
    """The GPUs of this host in words, for reports."""
    return [f"{gpu.name}, {gpu.memory_mb:,} MB" for gpu in discover()]


def discover() -> tuple[Gpu, ...]:
    """Every GPU that NVML shows; a GPU in MIG mode gives its instances instead of itself.

    Returns:
        GPUs in the order of their numbers; empty where there is no driver.
    """
    found: list[Gpu] = []
    with contextlib.suppress(pynvml.NVMLError), _nvml():
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            instances = list(_mig_instances(handle))
            if instances:
                found += [_describe(part, f"{number}:{place}") for place, part in enumerate(instances)]
            else:
                found.append(_describe(handle, str(number)))
    return tuple(found)


def free_gpu_mb(uuid: str) -> float | None:
    """Megabytes of memory free on a GPU; None where NVML does not know it."""
    with contextlib.suppress(pynvml.NVMLError), _nvml():
        return float(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid)).free) / 2**20
    return None


def choose(
    wanted: str, present: Sequence[Gpu], visible: str | None = None, *, option: str = "--gpus"
) -> tuple[Gpu, ...]:
    """The GPUs that ``--gpus`` names.

    Args:
        wanted: ``auto`` (all there are), ``none``, or numbers and UUIDs (or unique prefixes of them), separated
            by commas.
        present: What ``discover`` found.
        visible: CUDA_VISIBLE_DEVICES as it was when the agent started; numbers and ``auto`` then count within
            it, as every CUDA program does.
        option: The command line option, for error messages.

    Raises:
        InputError: A GPU is unknown, or named twice.
    """
    if wanted == "none":
        return ()
    usable = tuple(present) if visible is None else _visible(visible, present)
    if wanted == "auto":
        return usable
    chosen: list[Gpu] = []
    for word in (part.strip() for part in wanted.split(",")):
        gpu = _find(word, usable, by_place=visible is not None)
        if gpu is None:
            known = ", ".join(f"{g.index} ({g.uuid})" for g in usable) or "none"
            cpu = f"{option} {'cpu' if option == '--device' else 'none'} trains on the CPU"
            hint = None if usable else f"{cpu}; if the host has an NVIDIA GPU, check that nvidia-smi lists it"
            raise InputError(f"{option} {wanted}: unknown GPU {word!r}; this host has: {known}", hint=hint)
        if gpu in chosen:
            raise InputError(
                f"{option} {wanted}: GPU {word!r} is named twice", hint="for several slots on one GPU: --per-gpu N"
            )
        chosen.append(gpu)
    return tuple(chosen)


def visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES of this process; None if it is not set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
    """Use NVML; an NVMLError where there is no driver."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


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


def _mig_instances(handle: Any) -> Iterator[Any]:
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
        count = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:
        return
    if current != pynvml.NVML_DEVICE_MIG_ENABLE:
        return
    for place in range(count):
        with contextlib.suppress(pynvml.NVMLError):
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)


def _describe(handle: Any, index: str) -> Gpu:
    return Gpu(
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_mb=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // 2**20,
    )
