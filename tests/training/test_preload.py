"""The forkserver imports all that a trial needs, and nothing that would make a fork unsafe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_sweep.config.trial import parse_trial

SCRIPT = Path(__file__).with_name("preloaded_training.py")
HEAVY = {"torchvision", "transformers", "wandb", "optuna"}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
@pytest.mark.parametrize(
    ("sizes", "heavy"),
    [
        ({"model": "simple_cnn", "channels": 4, "hidden": 8}, set()),
        pytest.param({"model": "deeper_cnn", "width": 4}, set(), marks=pytest.mark.process),
        pytest.param({"model": "resnet18", "width": 8, "stem": "imagenet"}, {"torchvision"}, marks=pytest.mark.process),
        pytest.param(
            {"model": "vit", "patch_size": 16, "dim": 16, "depth": 1, "head_dim": 8},
            {"torchvision", "transformers"},
            marks=pytest.mark.process,
        ),
    ],
    ids=["simple_cnn", "deeper_cnn", "resnet18", "vit"],
)
def test_forked_trial_finds_its_imports_and_neither_threads_nor_cuda(
    sizes: dict[str, object], heavy: set[str], tmp_path: Path
) -> None:
    config = parse_trial({**sizes, "data": "tiny", "epochs": 1})
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-W", "error", str(SCRIPT), config.model_dump_json(), str(tmp_path / "trial")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["threads"], found["cuda"]) == (1, False)
    assert set(found["preloaded"]) & HEAVY <= heavy, "a sweep pays for what it never uses"
    assert heavy <= set(found["preloaded"])
    assert len(found["imported"]) < 5, found["imported"]
