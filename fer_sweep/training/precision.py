"""Which arithmetic a trial's forward pass runs in."""

import contextlib
import functools
import json
import time
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import ConfigError, Problem, StorageError
from fer_sweep.files import cache_dir, read_object, write_atomically
from fer_sweep.processor import bf16_flags, processor_name

Precision = Literal["fp32", "bf16"]

WORTH_IT = 1.2
"""`auto` takes bf16 on a processor where a convolution in it is so many times as fast as in fp32."""
_PROBES = 5


def choose_precision(config: TrialConfig, device: torch.device) -> Precision:
    """Resolve ``precision`` on a device: ``auto`` is bf16 on a GPU that has it and on a CPU that is faster with it.

    On Apple's GPU it is fp32: those before the M3 emulate bf16.

    Raises:
        ConfigError: bf16 on Apple's GPU before macOS 14, which does not have it.
    """
    if config.precision == "bf16" and device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        hint = "set precision=fp32 or auto, or update macOS; the CPU has bf16, too (gpus none, device cpu)"
        raise ConfigError([Problem("bf16 on Apple's GPU needs macOS 14", key="precision", hint=hint)])
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_gains_by_bf16() else "fp32"


@functools.cache
def cpu_gains_by_bf16() -> bool:
    """Whether bf16 is faster here than fp32, by a measurement of some 20 ms, cached by processor and version of torch.

    So a trial that is resumed on a busy machine keeps its arithmetic.
    """
    processor = _processor()
    if processor is None:
        return False
    path, key = cache_dir() / "bf16.json", f"{processor}, torch {torch.__version__}"
    known = read_object(path)
    if not isinstance(known.get(key), bool):
        known[key] = bf16_speedup() > WORTH_IT
        with contextlib.suppress(StorageError, OSError):  # a folder that cannot be written: measured again next time
            write_atomically(path, json.dumps(known, indent=2) + "\n")
    return bool(known[key])


def bf16_speedup() -> float:
    """How many times as fast a 3x3 convolution is in bf16 as in fp32 on one core of this CPU."""
    # Not random: the trial's own generator is seeded by now, and a draw would change what it trains.
    images = torch.full((16, 64, 24, 24), 0.5).to(memory_format=torch.channels_last)
    weights = torch.full((64, 64, 3, 3), 0.5).to(memory_format=torch.channels_last)
    seconds: dict[torch.dtype, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other, and on a busy machine that is all one would measure
    try:
        with torch.inference_mode():
            for _ in range(_PROBES):  # in turn, and the best of each, so that a busy moment decides nothing
                for dtype in (torch.float32, torch.bfloat16):
                    took = _seconds(images.to(dtype), weights.to(dtype))
                    seconds[dtype] = min(took, seconds.get(dtype, took))
    finally:
        torch.set_num_threads(threads)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _seconds(images: Tensor, weights: Tensor) -> float:
    began = time.perf_counter()
    functional.conv2d(images, weights, padding=1)
    return time.perf_counter() - began


def _processor() -> str | None:
    """The name of a processor that multiplies bf16 matrices (AMX or AVX512-BF16); None for one that does not."""
    return processor_name() or "unknown" if bf16_flags() else None
