"""What holds for every architecture."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from fer_sweep.config.trial import SharedConfig, parse_trial
from fer_sweep.models import build_model

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, dict[str, Any]] = {
    "simple_cnn": {"channels": 8, "hidden": 32},
    "deeper_cnn": {"blocks": 3, "convs_per_block": 1, "width": 8, "conv_dropout": 0.0},
    "resnet18": {"stem": "imagenet", "width": 8},
    "vit": {"patch_size": 16, "dim": 32, "depth": 2, "head_dim": 8},
}

GRID: list[dict[str, Any]] = [
    {"model": "simple_cnn", "channels": 1, "kernel_size": 3, "hidden": 7},
    {"model": "simple_cnn", "channels": 16, "kernel_size": 5, "hidden": 64, "dropout": 0.5},
    {"model": "simple_cnn", "channels": 4, "kernel_size": 7, "hidden": 512},
    {"model": "deeper_cnn", "blocks": 1, "convs_per_block": 1, "width": 1},
    {"model": "deeper_cnn", "blocks": 3, "convs_per_block": 2, "width": 16, "head": "flatten"},
    {"model": "deeper_cnn", "blocks": 5, "convs_per_block": 4, "width": 2, "head": "gap"},
    {"model": "deeper_cnn", "blocks": 5, "convs_per_block": 1, "width": 2, "head": "flatten"},
    {"model": "resnet18", "stem": "cifar", "width": 8},
    {"model": "resnet18", "stem": "imagenet", "width": 48, "dropout": 0.5},
    {"model": "vit", "patch_size": 4, "dim": 16, "depth": 1, "head_dim": 16, "mlp_ratio": 0.5},
    {"model": "vit", "patch_size": 6, "dim": 24, "depth": 2, "head_dim": 8, "mlp_ratio": 3.3},
    {"model": "vit", "patch_size": 24, "dim": 32, "depth": 3, "head_dim": 4, "stochastic_depth": 0.9, "dropout": 0.1},
]


def build(**values: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(parse_trial(values))


@pytest.mark.parametrize("values", GRID, ids=lambda v: "-".join(str(x) for x in v.values()))
def test_every_size_gives_finite_logits(values: dict[str, Any]) -> None:
    network = build(**values)
    for training, batch in ((True, 3), (False, 1)):
        logits = network.train(training)(torch.randn(batch, 1, 48, 48))
        assert logits.shape == (batch, 7)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        ({"model": "simple_cnn"}, 1_199_495),
        ({"model": "simple_cnn", "channels": 3, "kernel_size": 7, "hidden": 9}, 8_893),
        ({"model": "deeper_cnn"}, 287_783),
        ({"model": "deeper_cnn", "blocks": 5, "convs_per_block": 1, "width": 4, "head": "flatten"}, 25_219),
        ({"model": "resnet18"}, 11_171_271),
        ({"model": "resnet18", "stem": "imagenet", "width": 8}, 176_383),
        ({"model": "vit"}, 2_694_727),
        ({"model": "vit", "patch_size": 24, "dim": 16, "depth": 1, "head_dim": 16, "mlp_ratio": 0.7}, 11_010),
    ],
)
def test_number_of_parameters(values: dict[str, Any], parameters: int) -> None:
    assert sum(parameter.numel() for parameter in build(**values).parameters()) == parameters


@pytest.mark.parametrize("model", SMALL)
def test_gradient_reaches_every_parameter(model: str) -> None:
    network = build(model=model, **SMALL[model])
    functional.cross_entropy(network(torch.randn(16, 1, 48, 48)), torch.arange(16) % 7).backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is not None, name
        # Attention's key bias shifts every score of a query alike, so its gradient is zero but for rounding.
        assert name.endswith(("k_proj.bias", "key.bias")) or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", SMALL)
def test_one_small_batch_can_be_memorised(model: str) -> None:
    network = build(model=model, **SMALL[model])
    faces, labels = torch.randn(7, 1, 48, 48), torch.arange(7)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(60):
        loss = functional.cross_entropy(network(faces), labels)
        if loss < 0.1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize("model", SMALL)
def test_dropout_is_active_in_training_only(model: str) -> None:
    network = build(model=model, **SMALL[model], dropout=0.5)
    rates = {module.p for module in network.modules() if isinstance(module, nn.Dropout)}
    assert 0.5 in rates
    faces = torch.randn(4, 1, 48, 48)
    network.eval()
    assert torch.equal(network(faces), network(faces))
    for module in network.modules():  # only dropout, so that BatchNorm's running figures do not move
        module.training = isinstance(module, nn.Dropout)
    assert not torch.equal(network(faces), network(faces))


@pytest.mark.parametrize("model", SMALL)
def test_every_parameter_changes_the_network_and_equal_seeds_do_not(model: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "simple_cnn": {"channels": 9, "kernel_size": 5, "hidden": 33},
        "deeper_cnn": {"blocks": 2, "convs_per_block": 2, "width": 9, "head": "flatten", "conv_dropout": 0.4},
        "resnet18": {"stem": "cifar", "width": 16},
        "vit": {"patch_size": 12, "dim": 40, "depth": 3, "head_dim": 16, "mlp_ratio": 4.0, "stochastic_depth": 0.4},
    }
    own = type(parse_trial({"model": model})).model_fields.keys() - SharedConfig.model_fields.keys()
    assert changes[model].keys() == own - {"model", "pretrained"}
    faces = torch.randn(4, 1, 48, 48)

    def logits(**changed: Any) -> torch.Tensor:
        network = build(model=model, **{**SMALL[model], **changed})
        torch.manual_seed(1)
        return network(faces)  # type: ignore[no-any-return]

    before = logits()
    assert torch.equal(logits(), before)
    for field, value in changes[model].items():
        assert not torch.equal(logits(**{field: value}), before), field
