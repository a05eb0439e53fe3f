import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import fer_sweep.training.preload
import os, sys, torch
assert not {"torchvision", "transformers"} & set(sys.modules), "a sweep of CNNs pays for what it never uses"
import fer_sweep.models.simple_cnn, fer_sweep.models.deeper_cnn
assert not {"torchvision", "transformers"} & set(sys.modules)
import fer_sweep.models.resnet18, fer_sweep.models.vit
assert not torch.cuda.is_initialized(), "CUDA is initialised"
for name in ("torchvision.models.resnet", "transformers.models.vit.modeling_vit", "fer_sweep.training.loop"):
    assert name in sys.modules, name
assert not {"wandb", "optuna"} & set(sys.modules)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
def test_the_preload_touches_no_gpu_and_starts_no_thread() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "1"
