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


TRAINS = """
import sys, tempfile
from pathlib import Path
import fer_sweep.training.preload
import fer_sweep.models.{model}
from fer_sweep.config.trial import parse_trial
from fer_sweep.training.loop import train
before = set(sys.modules)
config = parse_trial(dict(model="{model}", data="tiny", epochs=1, **{sizes}))
train(config, Path(tempfile.mkdtemp()) / "trial")
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("simple_cnn", {"channels": 4, "hidden": 8}),
        ("deeper_cnn", {"width": 4}),
        ("resnet18", {"width": 8, "stem": "imagenet"}),
        ("vit", {"patch_size": 16, "dim": 16, "depth": 1, "head_dim": 8}),
    ],
)
def test_a_trial_imports_next_to_nothing_after_the_preload(model: str, sizes: dict[str, object]) -> None:
    script = TRAINS.format(model=model, sizes=sizes)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.split()) < 5, ended.stdout
