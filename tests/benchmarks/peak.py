"""How much of this machine's fastest matrix multiplication a training step reaches, measured in one process.

python -m tests.benchmarks.peak --model vit
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fer_sweep.config.trial import parse_trial
from fer_sweep.models import build_model, memory_format
from fer_sweep.training.evaluation import forward
from fer_sweep.training.optimizer import build_optimizer
from fer_sweep.training.precision import choose_precision
from fer_sweep.worker.own_process import keep_freed_memory

BATCH = 128


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest square matrix multiplication."""
    found = 0.0
    for size in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
        times = _seconds(lambda left=left, right=right: left @ right, device, 8)
        found = max(found, 2 * size**3 / min(times) / 1e9)
    return found


def step_rate(model: str, device: torch.device) -> tuple[float, float, str]:
    """GFLOP and seconds of one training step at batch 128, and its precision."""
    config = parse_trial({"model": model})
    torch.manual_seed(0)
    network = build_model(config).to(device).to(memory_format=memory_format(config))
    optimizer = build_optimizer(network, config)
    precision = choose_precision(config, device)
    images, labels = torch.rand(BATCH, 1, 48, 48, device=device), torch.randint(7, (BATCH,), device=device)

    def step() -> None:
        loss = functional.cross_entropy(forward(network, images, precision), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9, statistics.median(_seconds(step, device, 10)), precision


def _seconds(work: Callable[[], object], device: torch.device, times: int) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", action="store_true", help="what it prints anyway")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    gflop, seconds, precision = step_rate(arguments.model, device)
    # Only of what it trains in: without instructions for it, a processor takes minutes over a product in bf16.
    top = peak(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    found = {"share": 100 * gflop / seconds / top, "gflop_per_second": gflop / seconds, "peak": top}
    print(json.dumps({**found, "images_per_second": BATCH / seconds, "precision": precision}))


if __name__ == "__main__":
    main()
