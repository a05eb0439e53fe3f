"""SimpleCNN: two convolutions and a hidden layer."""

import pytest
import torch
from torch import nn

from fer_sweep.models.simple_cnn import SimpleCNN


@pytest.mark.parametrize(("channels", "kernel_size", "hidden"), [(32, 3, 128), (16, 5, 64), (3, 7, 9)])
def test_layers_have_the_sizes_of_the_configuration(channels: int, kernel_size: int, hidden: int) -> None:
    network = SimpleCNN(channels=channels, kernel_size=kernel_size, hidden=hidden, dropout=0.3)
    modules = list(network.modules())
    assert [m.out_channels for m in modules if isinstance(m, nn.Conv2d)] == [channels, 2 * channels]
    assert [m.out_features for m in modules if isinstance(m, nn.Linear)] == [hidden, 7]
    assert [m.p for m in modules if isinstance(m, nn.Dropout)] == [0.3]
    area = kernel_size**2
    expected = channels * area + channels  # first convolution and its bias
    expected += 2 * channels * channels * area + 2 * channels
    expected += 2 * channels * 12 * 12 * hidden + hidden
    expected += hidden * 7 + 7
    assert sum(p.numel() for p in network.parameters()) == expected


def test_pooling_before_relu_has_the_same_values_and_gradients() -> None:
    torch.manual_seed(0)
    network = SimpleCNN(channels=4, kernel_size=3, hidden=16, dropout=0.0).double()
    first, pool, relu, second = (network.features[i] for i in range(4))
    usual = nn.Sequential(first, nn.ReLU(), pool, second, nn.ReLU(), pool)
    assert isinstance(relu, nn.ReLU)
    faces = torch.randn(3, 1, 48, 48, dtype=torch.float64)
    assert torch.equal(network.features(faces), usual(faces))
    gradients = [
        torch.autograd.grad(f(faces).square().sum(), list(first.parameters())) for f in (network.features, usual)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
