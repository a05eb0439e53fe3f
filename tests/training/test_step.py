"""Steps as CUDA graphs. test_loop.py tests steps on a CPU."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from fer_sweep.config.trial import parse_trial
from fer_sweep.data import augment
from fer_sweep.data.mixing import draw_mixing
from fer_sweep.files import trial_folder
from fer_sweep.records import FER2013, StopReason, TrialState
from fer_sweep.training import step as steps_module
from fer_sweep.training.history import read_history
from fer_sweep.training.loop import train
from fer_sweep.training.step import WARM_UP, Batch, Steps
from fer_sweep.training.trial import Trial

pytestmark = pytest.mark.gpu

SIZES = {
    "simple_cnn": {"channels": 4, "hidden": 16},
    "deeper_cnn": {"width": 8, "blocks": 2},
    "resnet18": {"width": 8},
    "vit": {"patch_size": 12, "dim": 32, "depth": 2, "head_dim": 16},
}
AUGMENT = {
    "shift": 0.1,
    "rotation": 10.0,
    "scale": 0.1,
    "flip": True,
    "erasing": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "brightness": 0.1,
    "contrast": 0.1,
    "mix_until": 0.5,
}


def small(model, **changes):
    values = {"model": model, "data": "tiny", "epochs": 6, "batch_size": 24, "precision": "fp32", "lr": 1e-3}
    return parse_trial({**values, **SIZES[model], "augment": AUGMENT, "clip_norm": 1.0, **changes})


def begun(folder, **changes):
    trial = Trial(small("simple_cnn", **changes), folder, torch.device("cuda:0"))
    trial.model.train()
    drawn = augment.draw(trial.config.augment, 24, FER2013, np.random.default_rng(0)).to(trial.device)
    mixing = draw_mixing(trial.config.augment, 1, FER2013, np.random.default_rng(0), share=0.0)[0]
    return trial, Batch(trial.faces.train[:24], drawn, mixing.each(lambda part: part.to(trial.device)))


def loss_of(trial, steps, batch, lr):
    trial.progress.loss_sum.zero_()
    steps.take(batch, lr)
    return float(trial.progress.loss_sum)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("model", SIZES)
def test_graphs_train_like_single_kernels(model, optimizer, tmp_path, monkeypatch):
    compare(small(model, optimizer=optimizer, dropout=0.0, ema_decay=0.9), tmp_path, monkeypatch)


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_graphs_train_with_a_teacher_like_single_kernels(temperature, tmp_path, monkeypatch, caplog):
    train(small("deeper_cnn", epochs=1), trial_folder("t", "0"), device="cuda:0")
    compare(small("vit", distill_from="t/0", distill_temperature=temperature), tmp_path, monkeypatch)
    assert "cannot be captured" not in caplog.text


def compare(config, tmp_path, monkeypatch):
    """Train with and without graphs."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    train(config, tmp_path / "graphs", device="cuda:0", micro_batch=16)
    monkeypatch.setattr(steps_module, "WARM_UP", 10**9)
    train(config, tmp_path / "kernels", device="cuda:0", micro_batch=16)
    graphs, kernels = (read_history(tmp_path / name / "history.jsonl") for name in ("graphs", "kernels"))
    assert len(graphs) == 6
    for one, other in zip(graphs, kernels, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=2e-3)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=2e-2)
        assert one["lr"] == other["lr"]


def test_replay_uses_its_own_batch_learning_rate_and_random_numbers(tmp_path):
    trial, batch = begun(tmp_path, dropout=0.5)
    steps = Steps(trial)
    for _ in range(WARM_UP):
        steps.take(batch, 0.0)
    before = copy.deepcopy(trial.model.state_dict())
    losses = [loss_of(trial, steps, batch, lr=0.0) for _ in range(4)]
    assert len(set(losses)) == 4  # another dropout each
    assert all(torch.equal(before[name], value) for name, value in trial.model.state_dict().items())
    steps.take(batch, 0.1)
    assert not torch.equal(before["classifier.4.weight"], trial.model.state_dict()["classifier.4.weight"])
    assert trial.progress.step == WARM_UP + 5
    assert trial.progress.images == 24 * (WARM_UP + 5)
    for group in trial.optimizer.param_groups:
        assert isinstance(group["lr"], float)
        assert not group.get("capturable", False)


class _Synchronizing(nn.Module):
    """A model that waits for the device, which no graph can."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        assert float(images.mean()) < 100.0
        return self.model(images)


def test_model_that_cannot_be_captured_is_trained_without_graphs(tmp_path, caplog):
    trial, batch = begun(tmp_path, dropout=0.1)
    trial.model = _Synchronizing(trial.model)
    steps = Steps(trial)
    losses = [loss_of(trial, steps, batch, lr=1e-3) for _ in range(WARM_UP + 20)]
    assert losses[-1] < losses[0]
    (warning,) = [record for record in caplog.records if "cannot be captured" in record.message]
    assert warning.levelname == "WARNING"
    assert trial.progress.step == WARM_UP + 20


def test_preempted_training_resumes_with_the_same_losses(tmp_path):
    config, folder, asked = small("deeper_cnn", dropout=0.3, ema_decay=0.9), tmp_path / "t", itertools.count(1)
    train(config, tmp_path / "whole", device="cuda:0")
    stopped = train(config, folder, device="cuda:0", stop=lambda: StopReason.PREEMPTED if next(asked) == 20 else None)
    assert stopped.state is TrialState.PREEMPTED
    assert train(config, folder, device="cuda:0").state is TrialState.COMPLETE
    whole, resumed = (read_history(tmp_path / name / "history.jsonl") for name in ("whole", "t"))
    for one, other in zip(whole, resumed, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=2e-2)
