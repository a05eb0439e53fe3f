"""What holds for every architecture."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fer_sweep.config.trial import SharedConfig, parse_trial
from fer_sweep.models import build_model, memory_format
from fer_sweep.records import FER2013
from tests.training.conftest import SIZES

SMALL = {model: {"model": model, **sizes} for model, sizes in SIZES.items()}
SMALL["deeper_cnn"] |= {"blocks": 3, "convs_per_block": 1, "width": 8, "conv_dropout": 0.0}
each_model = pytest.mark.parametrize("values", SMALL.values(), ids=SMALL)
each_kind = pytest.mark.parametrize(
    "values",
    [*SMALL.values(), *(SMALL["vit"] | {"stem": "conv", "pool": pool} for pool in ("cls", "mean", "sequence"))],
    ids=[*SMALL, "conv cls", "conv mean", "conv sequence"],
)


def build(**values):
    torch.manual_seed(0)
    return build_model(parse_trial(values), FER2013)


@pytest.mark.parametrize(
    ("parameters", "values"),
    [
        (1_199_495, {"model": "simple_cnn"}),
        (8_893, {"model": "simple_cnn", "channels": 3, "kernel_size": 7, "hidden": 9}),
        (308_679, {"model": "simple_cnn", "channels": 16, "kernel_size": 5, "hidden": 64, "dropout": 0.5}),
        (287_783, {"model": "deeper_cnn"}),
        (25, {"model": "deeper_cnn", "blocks": 1, "convs_per_block": 1, "width": 1}),
        (43_693, {"model": "deeper_cnn", "blocks": 5, "convs_per_block": 4, "width": 2, "head": "gap"}),
        (25_219, {"model": "deeper_cnn", "blocks": 5, "convs_per_block": 1, "width": 4, "head": "flatten"}),
        (3_914_695, {"model": "deeper_cnn", "blocks": 5, "convs_per_block": 1, "width": 64}),
        (11_171_271, {"model": "resnet18"}),
        (176_383, {"model": "resnet18", "stem": "imagenet", "width": 8}),
        (2_694_727, {"model": "vit"}),
        (11_010, {"model": "vit", "patch_size": 24, "dim": 16, "depth": 1, "head_dim": 16, "mlp_ratio": 0.7}),
        (2_890_711, {"model": "vit", "stem": "conv"}),
        (2_694_919, {"model": "vit", "pool": "sequence"}),
        (11_799, {"model": "vit", "stem": "conv", "patch_size": 2, "dim": 16, "depth": 1, "head_dim": 8}),
        (12_439, {"model": "vit", "patch_size": 6, "dim": 24, "depth": 2, "head_dim": 8, "stochastic_depth": 0.9}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_every_size_has_its_parameters_and_gives_finite_logits(parameters, values):
    network = build(**values)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    for training, batch in ((True, 3), (False, 1)):
        logits = network.train(training)(torch.randn(batch, 1, 48, 48))
        assert logits.shape == (batch, 7)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()


@each_kind
def test_gradient_reaches_every_parameter_and_one_small_batch_is_memorised(values):
    network = build(**values)
    faces, labels = torch.randn(7, 1, 48, 48), torch.arange(7)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(200):
        loss = functional.cross_entropy(network(faces), labels)
        if loss < 0.1:
            break
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in network.named_parameters() if step == 0 else ():
            # Attention's key bias shifts every score of a query alike, so its gradient is zero but for rounding.
            assert name.endswith(("k_proj.bias", "key.bias")) or parameter.grad.abs().sum() > 0, name
        optimizer.step()
    assert loss < 0.1


@each_model
def test_dropout_is_active_in_training_only(values):
    network = build(**values, dropout=0.5).eval()
    assert 0.5 in {module.p for module in network.modules() if isinstance(module, nn.Dropout)}
    faces = torch.randn(4, 1, 48, 48)
    assert torch.equal(network(faces), network(faces))
    for module in network.modules():  # only dropout, so that BatchNorm's running figures do not move
        module.training = isinstance(module, nn.Dropout)
    assert not torch.equal(network(faces), network(faces))


def test_conv_dropout_drops_whole_channels():
    network = build(model="deeper_cnn", conv_dropout=0.25)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout2d)] == [0.25] * 3


def test_neither_the_narrowest_resnet_nor_apples_gpu_has_channels_last_which_crashes_there():
    cases = [(8, "cpu"), (16, "cpu"), (16, "mps")]
    formats = [memory_format(parse_trial({"model": "resnet18", "width": w}), torch.device(d)) for w, d in cases]
    assert formats == [torch.contiguous_format, torch.channels_last, torch.contiguous_format]


@each_model
def test_every_field_changes_the_network_and_equal_seeds_do_not(values):
    model = values["model"]
    changes = {
        "simple_cnn": {"channels": 9, "kernel_size": 5, "hidden": 33},
        "deeper_cnn": {"blocks": 2, "convs_per_block": 2, "width": 9, "head": "flatten", "conv_dropout": 0.4},
        "resnet18": {"stem": "cifar", "width": 16},
        "vit": {
            **{"patch_size": 12, "dim": 40, "depth": 3, "head_dim": 16, "mlp_ratio": 4.0, "stochastic_depth": 0.4},
            **{"stem": "conv", "pool": "mean"},
        },
    }[model]
    own = type(parse_trial({"model": model})).model_fields.keys() - SharedConfig.model_fields.keys()
    assert changes.keys() == own - {"model", "pretrained"}
    faces = torch.randn(4, 1, 48, 48)

    def logits(**changed):
        network = build(**values | changed)
        torch.manual_seed(1)
        return network(faces)

    before = logits()
    assert torch.equal(logits(), before)
    for field, value in changes.items():
        assert not torch.equal(logits(**{field: value}), before), field
