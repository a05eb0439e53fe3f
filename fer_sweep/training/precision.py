"""Which arithmetic a trial's forward pass runs in."""

import functools
from pathlib import Path
from typing import Literal

import torch

from fer_sweep.config.trial import TrialConfig

Precision = Literal["fp32", "bf16"]


def choose_precision(config: TrialConfig, device: torch.device) -> Precision:
    """What ``precision`` comes to on a device.

    ``auto`` takes bf16 on a GPU that has it; on a processor with AMX or AVX512-BF16 for the convolutional models
    only, because there autocast costs ViT more than it gives.
    """
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and config.model != "vit" and cpu_has_bf16() else "fp32"


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices in hardware (AMX or AVX512-BF16), as Linux says."""
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "amx_bf16" in words or "avx512_bf16" in words
