"""DeeperCNN: blocks of convolution, BatchNorm and ReLU, each ended by max-pooling and Dropout of whole channels."""

from torch import Tensor, nn

from fer_sweep.config.trial import DeeperCNNConfig
from fer_sweep.records import DataSpec

MAX_WIDTH = 512
"""Channels at which the doubling ends."""


class DeeperCNN(nn.Module):
    """Images (B, C, H, W) to logits (B, K); each block halves the sides and doubles the channels."""

    def __init__(self, config: DeeperCNNConfig, spec: DataSpec) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels, height, width = spec.shape
        for number in range(config.blocks):
            wider = min(config.width * 2**number, MAX_WIDTH)
            blocks.append(_block(channels, wider, config.convs_per_block, config.conv_dropout))
            channels, height, width = wider, height // 2, width // 2
        self.blocks = nn.Sequential(*blocks)
        # Pooled or not, what leaves is (B, channels, positions) flattened.
        self.pool = nn.AdaptiveAvgPool2d(1) if config.head == "gap" else nn.Identity()
        positions = 1 if config.head == "gap" else height * width
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(config.dropout), nn.Linear(channels * positions, len(spec.classes))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.classifier(self.pool(self.blocks(images)))
        return logits


def _block(channels: int, width: int, convolutions: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(convolutions):
        # No bias: BatchNorm takes the mean away again.
        layers.append(nn.Conv2d(channels if number == 0 else width, width, 3, padding=1, bias=False))
        layers.append(nn.BatchNorm2d(width))
        if number == convolutions - 1:
            layers.append(nn.MaxPool2d(2))  # before the last ReLU: the same function, on a quarter of the values
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers)


def build(config: DeeperCNNConfig, spec: DataSpec) -> nn.Module:
    """The network with He-initialised convolutions (He et al. 2015)."""
    model = DeeperCNN(config, spec)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
