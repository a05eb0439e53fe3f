import pytest
import torch
from torch import nn

from fer_sweep.models.simple_cnn import SimpleCNN


@pytest.mark.parametrize(("channels", "kernel_size", "hidden"), [(32, 3, 128), (16, 5, 64), (3, 7, 9)])
def test_parameters(channels: int, kernel_size: int, hidden: int) -> None:
    network = SimpleCNN(channels=channels, kernel_size=kernel_size, hidden=hidden, dropout=0.1)
    area = kernel_size**2
    expected = channels * area + channels  # first convolution and its bias
    expected += 2 * channels * channels * area + 2 * channels
    expected += 2 * channels * 12 * 12 * hidden + hidden
    expected += hidden * 7 + 7
    assert sum(p.numel() for p in network.parameters()) == expected


def test_it_has_two_convolutions_and_a_hidden_layer() -> None:
    modules = list(SimpleCNN(channels=4, kernel_size=3, hidden=16, dropout=0.3).modules())
    assert [m.out_channels for m in modules if isinstance(m, nn.Conv2d)] == [4, 8]
    assert [m.out_features for m in modules if isinstance(m, nn.Linear)] == [16, 7]
    assert [m.p for m in modules if isinstance(m, nn.Dropout)] == [0.3]


def test_pooling_before_relu_is_the_same_function_with_the_same_gradient() -> None:
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
