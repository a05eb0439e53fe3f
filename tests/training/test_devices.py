"""What the process of a trial asks of torch on Apple's GPU, which torch's own functions are replaced for here."""

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fer_sweep.records import TrialState
from fer_sweep.training.devices import limit_gpu_memory, peak_memory_mb, restore_rng, rng_state
from fer_sweep.training.loop import train
from fer_sweep.worker.trial_process import StopFlag, TrialJob, _outcome, train_here
from tests.training.conftest import small

MPS = torch.device("mps")


@pytest.mark.parametrize(("built", "cure"), [(True, "update macOS"), (False, "Python for arm64")])
def test_a_trial_without_its_gpu_is_requeued_and_says_what_to_do(built, cure, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
    outcome = _outcome(lambda: train_here(TrialJob(small(), tmp_path, "mps"), StopFlag(), Mock()))
    assert outcome.state is TrialState.PREEMPTED
    for word in ("device mps", sys.executable, cure, "--gpus none"):
        assert word in (outcome.reason or "")


def test_memory_and_random_numbers_are_those_of_apples_gpu(monkeypatch):
    gpu = SimpleNamespace(share=None, state=torch.tensor([1, 2], dtype=torch.uint8))
    monkeypatch.setattr(torch.mps, "set_per_process_memory_fraction", lambda share: setattr(gpu, "share", share))
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3 * 2**20)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: gpu.state)
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: setattr(gpu, "state", state))
    limit_gpu_memory(MPS, 0.5)
    assert (gpu.share, peak_memory_mb(MPS)) == (0.5, 3.0)
    saved, gpu.state = rng_state(MPS), None
    restore_rng(torch.device("cpu"), saved)  # a trial that is resumed on the CPU
    assert gpu.state is None
    restore_rng(MPS, saved)
    assert gpu.state.tolist() == [1, 2]


class NoDoubles(TorchDispatchMode):
    """Fails at the first float64 tensor, which Apple's GPU cannot have."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        assert not any(tensor.dtype == torch.float64 for tensor in tensors), function
        return result


def test_no_tensor_of_a_training_has_double_precision(tmp_path):
    config = small(epochs=1, ema_decay=0.9, clip_norm=1.0, label_smoothing=0.1, augment={"mixup": 0.2, "erasing": 0.5})
    with NoDoubles():
        assert train(config, tmp_path).state is TrialState.COMPLETE
