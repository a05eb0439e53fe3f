"""SimpleCNN and DeeperCNN: their layers."""

import torch
from torch import nn

from fer_sweep.config.trial import DeeperCNNConfig
from fer_sweep.models.deeper_cnn import build
from fer_sweep.models.simple_cnn import SimpleCNN


def test_simple_cnn_pools_before_relu_with_the_same_values_and_gradients():
    torch.manual_seed(0)
    network = SimpleCNN(channels=4, kernel_size=3, hidden=16, dropout=0.0).double()
    first, pool, relu, second = (network.features[i] for i in range(4))
    usual = nn.Sequential(first, nn.ReLU(), pool, second, nn.ReLU(), pool)
    assert isinstance(relu, nn.ReLU)
    faces = torch.randn(3, 1, 48, 48, dtype=torch.float64)
    assert torch.equal(network.features(faces), usual(faces))
    weights = list(first.parameters())
    ours, theirs = (torch.autograd.grad(f(faces).square().sum(), weights) for f in (network.features, usual))
    torch.testing.assert_close(ours, theirs)


def test_deeper_cnn_has_blocks_of_convolutions_whose_width_doubles_up_to_512():
    network = build(DeeperCNNConfig(blocks=3, convs_per_block=2, width=256, conv_dropout=0.25, dropout=0.4))
    modules = list(network.modules())
    widths = [256, 256, 512, 512, 512, 512]
    assert [m.out_channels for m in modules if isinstance(m, nn.Conv2d)] == widths
    assert [m.num_features for m in modules if isinstance(m, nn.BatchNorm2d)] == widths
    assert [m.p for m in modules if isinstance(m, nn.Dropout2d)] == [0.25] * 3, "which drops whole channels"
    assert [m.p for m in modules if isinstance(m, nn.Dropout)] == [0.4]
