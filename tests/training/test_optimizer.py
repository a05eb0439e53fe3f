"""The optimizer, the learning-rate schedule and the average of the weights."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fer_sweep.models import build_model
from fer_sweep.records import FER2013
from fer_sweep.training.optimizer import WeightAverage, build_optimizer, learning_rate
from tests.training.conftest import SIZES, small


@pytest.mark.parametrize(
    "values", [*({"model": model} for model in SIZES), {"model": "vit", "stem": "conv", "pool": "sequence"}], ids=str
)
def test_only_weights_decay(values):
    config = small(**values, weight_decay=0.3)
    network = build_model(config, FER2013)
    groups = build_optimizer(network, config).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for module in network.modules():
        is_normalisation = isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        for name, parameter in module.named_parameters(recurse=False):
            free = is_normalisation or name in ("bias", "cls_token", "position_embeddings")
            assert decays.pop(id(parameter)) == (0.0 if free else 0.3), name
    assert not decays


@pytest.mark.parametrize(("name", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_steps_are_those_of_torch_also_after_a_resume(name, momentum):
    config = small(optimizer=name, lr=0.1, momentum=momentum, weight_decay=0.3)
    torch.manual_seed(0)
    ours, images = nn.Linear(5, 3), torch.randn(4, 5)
    theirs = copy.deepcopy(ours)
    optimizer, groups = build_optimizer(ours, config), build_optimizer(theirs, config).param_groups
    sgd = {"momentum": momentum, "nesterov": momentum > 0}
    kind, options = (torch.optim.AdamW, {}) if name == "adamw" else (torch.optim.SGD, sgd)
    reference = kind(groups, lr=0.1, fused=True, **options)
    for step in range(4):
        if step == 2:
            saved, optimizer = optimizer.state_dict(), build_optimizer(ours, config)
            optimizer.load_state_dict(saved)
        for network, stepped in ((ours, optimizer), (theirs, reference)):
            stepped.zero_grad()
            network(images).square().sum().backward()
            stepped.step()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(total=st.integers(1, 500), warmup=st.floats(0.0, 0.5), lr=st.floats(1e-6, 10.0))
def test_learning_rate_rises_to_its_peak_and_falls(total, warmup, lr):
    config = small(lr=lr, warmup=warmup)
    rates = [learning_rate(config, step, total) for step in range(total)]
    rising = round(warmup * total)
    assert max(rates) == pytest.approx(lr)
    assert all(0.0 < rate <= lr * (1 + 1e-12) for rate in rates)
    assert np.allclose(rates[:rising], lr * np.arange(1, rising + 1) / max(rising, 1))
    assert all(earlier >= later for earlier, later in zip(rates[rising:], rates[rising + 1 :], strict=False))
    assert rates[-1] <= lr * 0.5 * (1 + math.cos(math.pi * (1 - 1 / (total - rising)))) * (1 + 1e-9)


def test_average_follows_the_weights():
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = WeightAverage(network, decay=0.5)
    start = float(average.model[0].weight)
    with torch.no_grad():
        network[0].weight += 1.0
        network[1].num_batches_tracked += 5
    average.update(step=1000)
    assert float(average.model[0].weight) == pytest.approx(start + 0.5)
    assert int(average.model[1].num_batches_tracked) == 5
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    average.update(step=0)  # decay 0.1: a young average forgets its random start quickly
    assert float(average.model[0].weight) == pytest.approx(start + 0.95)
