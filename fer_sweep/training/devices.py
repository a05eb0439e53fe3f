"""What differs between the devices that a trial trains on: the CPU, NVIDIA's GPUs (cuda) and Apple's (mps)."""

import sys
from collections.abc import Mapping

import psutil
import torch
from torch import Tensor

from fer_sweep.errors import DeviceMissing


def check_device(device: torch.device) -> None:
    """Raise DeviceMissing if torch cannot use Apple's GPU; of NVIDIA's, its own errors say as much."""
    if device.type != "mps" or torch.backends.mps.is_available():
        return
    if torch.backends.mps.is_built():
        why, cure = "finds no GPU that this macOS lets it use", "update macOS"
    else:
        why, cure = "is built without support of Apple's GPU", "install fersweep in a Python for arm64"
    raise DeviceMissing(
        f"device mps: torch {torch.__version__} of {sys.executable} {why}",
        hint=f"{cure}, or use the CPU: --gpus none, or --device cpu",
    )


def limit_gpu_memory(device: torch.device, share: float) -> None:
    """Have allocations of this process fail beyond a share, in (0, 1], of a GPU's memory.

    On Apple's, a share of what macOS recommends as the most that its GPU takes of the host's memory.
    """
    if device.type == "mps":
        torch.mps.set_per_process_memory_fraction(share)
    else:
        torch.cuda.set_per_process_memory_fraction(share, device)


def peak_memory_mb(device: torch.device) -> float:
    """Megabytes that this process has taken: on the CPU all of it, on a GPU its tensors.

    torch counts no peak on Apple's GPU. What it holds of the driver's memory is close, since it keeps what is freed.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**20
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    else:
        import resource  # does not exist on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """States of the random generators that a training on a device draws from, by their names in a checkpoint."""
    states = {"rng": torch.get_rng_state()}
    if device.type != "cpu":
        states[f"{device.type}_rng"] = torch.get_device_module(device).get_rng_state(device)
    return states


def restore_rng(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Restore what ``rng_state`` gave, as far as it belongs to this device: a trial may be resumed on another one."""
    torch.set_rng_state(states["rng"])
    own = f"{device.type}_rng"
    if own in states:
        torch.get_device_module(device).set_rng_state(states[own], device)
