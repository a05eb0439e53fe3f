"""How much of this machine's fastest matrix multiplication a training step reaches, measured in one process.

python -m tests.benchmarks.peak --model vit
"""

import argparse
import json
from collections.abc import Callable

import torch
from torch.nn import functional
from torch.utils.benchmark import Measurement, Timer
from torch.utils.flop_counter import FlopCounterMode

from fer_sweep.config.trial import parse_trial
from fer_sweep.models import build_model, memory_format
from fer_sweep.records import FER2013
from fer_sweep.training.evaluation import forward
from fer_sweep.training.optimizer import build_optimizer
from fer_sweep.training.precision import choose_precision
from fer_sweep.worker.resources import keep_freed_memory

BATCH = 128
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest square matrix multiplication."""
    found = 0.0
    for size in (1024, 2048) if DEVICE.type == "cpu" else (4096, 8192):
        left, right = (torch.rand(size, size, device=DEVICE).to(dtype) for _ in range(2))
        found = max(found, 2 * size**3 / min(_timed(lambda left=left, right=right: left @ right).times) / 1e9)
    return found


def step_rate(model: str) -> tuple[float, float, str]:
    """GFLOP and seconds of one training step at batch 128, and its precision."""
    config = parse_trial({"model": model})
    torch.manual_seed(0)
    network = build_model(config, FER2013).to(DEVICE).to(memory_format=memory_format(config, torch.device(DEVICE)))
    optimizer = build_optimizer(network, config)
    precision = choose_precision(config, DEVICE)
    images, labels = torch.rand(BATCH, 1, 48, 48, device=DEVICE), torch.randint(7, (BATCH,), device=DEVICE)

    def step() -> None:
        loss = functional.cross_entropy(forward(network, images, precision), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9, _timed(step).median, precision


def _timed(work: Callable[[], object]) -> Measurement:
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=5.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    keep_freed_memory()
    gflop, seconds, precision = step_rate(parser.parse_args().model)
    # Only of what it trains in: without instructions for it, a processor takes minutes over a product in bf16.
    top = peak(torch.bfloat16 if precision == "bf16" else torch.float32)
    rates = {"gflop_per_second": gflop / seconds, "peak": top, "images_per_second": BATCH / seconds}
    print(json.dumps({"share": 100 * gflop / seconds / top, **rates, "precision": precision}))
