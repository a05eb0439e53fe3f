"""DeeperCNN: blocks of convolutions, BatchNorm and dropout of whole channels."""

import pytest
import torch
from torch import nn

from fer_sweep.config.trial import DeeperCNNConfig
from fer_sweep.models.deeper_cnn import build


@pytest.mark.parametrize("head", ["gap", "flatten"])
@pytest.mark.parametrize(("blocks", "convolutions", "width"), [(3, 2, 32), (5, 1, 4), (1, 3, 8)])
def test_blocks_have_the_sizes_of_the_configuration(head: str, blocks: int, convolutions: int, width: int) -> None:
    config = DeeperCNNConfig.model_validate(
        {"blocks": blocks, "convs_per_block": convolutions, "width": width, "head": head, "conv_dropout": 0.25}
        | {"dropout": 0.4}
    )
    network = build(config)
    modules = list(network.modules())
    widths = [width * 2**number for number in range(blocks) for _ in range(convolutions)]
    assert [m.out_channels for m in modules if isinstance(m, nn.Conv2d)] == widths
    assert [m.num_features for m in modules if isinstance(m, nn.BatchNorm2d)] == widths
    assert [m.p for m in modules if isinstance(m, nn.Dropout2d)] == [0.25] * blocks
    assert [m.p for m in modules if isinstance(m, nn.Dropout)] == [0.4]
    side = 48 // 2**blocks
    positions = 1 if head == "gap" else side * side
    inputs = [1, *widths[:-1]]
    expected = sum(9 * a * b + 2 * b for a, b in zip(inputs, widths, strict=True)) + 7 * (widths[-1] * positions + 1)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_width_stops_doubling_at_512() -> None:
    network = build(DeeperCNNConfig(blocks=3, convs_per_block=1, width=256))
    assert [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)] == [256, 512, 512]


def test_dropout_drops_whole_channels() -> None:
    network = build(DeeperCNNConfig(blocks=1, convs_per_block=1, width=64, conv_dropout=0.5))
    blocks = network.get_submodule("blocks")
    for module in network.modules():
        module.training = isinstance(module, nn.Dropout2d)
    maps = blocks(torch.randn(2, 1, 48, 48)).flatten(2)
    assert blocks.eval()(torch.randn(2, 1, 48, 48)).flatten(2).any(-1).all()
    dropped = ~maps.any(-1)
    assert 0.2 < dropped.float().mean() < 0.8
