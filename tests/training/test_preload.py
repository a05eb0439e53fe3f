"""The forkserver imports all that a trial needs, and nothing that would make a fork unsafe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import small

SCRIPT = Path(__file__).with_name("preloaded_training.py")
HEAVY = {"torchvision", "transformers", "wandb", "optuna"}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
@pytest.mark.parametrize(
    ("model", "heavy"),
    [
        ("simple_cnn", set()),
        pytest.param("deeper_cnn", set(), marks=pytest.mark.process),
        pytest.param("resnet18", {"torchvision"}, marks=pytest.mark.process),
        pytest.param("vit", {"torchvision", "transformers"}, marks=pytest.mark.process),
    ],
)
def test_forked_trial_finds_its_imports_and_neither_threads_nor_cuda(model, heavy, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-W", "error", SCRIPT, small(model, epochs=1).model_dump_json(), tmp_path / "trial"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["threads"], found["cuda"]) == (1, False)
    assert set(found["preloaded"]) & HEAVY == heavy, "a sweep pays for no more than it uses"
    assert len(found["imported"]) < 5, found["imported"]
