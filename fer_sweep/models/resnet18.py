"""ResNet18 (He et al. 2016) from torchvision's residual block, with two stems, any width and any number of channels.

The names of the parts are torchvision's, so its state dictionaries load unchanged, for one channel
once conv1 is summed over its three. A 3x3 stride-1 stem without max-pool ("cifar") keeps a 6x6 final map at 48 pixels.
"""

import contextlib
import pickle
import sys
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock, conv1x1

from fer_sweep.config.trial import ResNet18Config
from fer_sweep.errors import WeightsUnavailable
from fer_sweep.records import DataSpec

WEIGHTS = ResNet18_Weights.IMAGENET1K_V1


class ResNet18(nn.Module):
    """Images (B, C, H, W) to logits (B, K); four stages of two residual blocks, ``width`` to 8 * ``width`` wide."""

    def __init__(self, spec: DataSpec, *, stem: str, width: int, dropout: float) -> None:
        super().__init__()
        if stem == "cifar":
            self.conv1 = nn.Conv2d(spec.channels, width, 3, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(spec.channels, width, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width, len(spec.classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits


def _stage(channels: int, width: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels != width:
        shortcut = nn.Sequential(conv1x1(channels, width, stride), nn.BatchNorm2d(width))
    return nn.Sequential(BasicBlock(channels, width, stride, shortcut), BasicBlock(width, width))


def build(config: ResNet18Config, spec: DataSpec) -> nn.Module:
    """The network, from random or from torchvision's ImageNet weights; WeightsUnavailable if it cannot get those."""
    model = ResNet18(spec, stem=config.stem, width=config.width, dropout=config.dropout)
    if config.pretrained and config.weights_from is None:
        weights = _imagenet_weights()
        if absent := dict(model.named_parameters()).keys() - weights.keys():
            raise WeightsUnavailable(
                f"the weights in {_weights_path()} are not ResNet18's: {min(absent)} is missing",
                hint="delete the file so that it is downloaded again, or set pretrained=false",
            )
        if spec.channels == 1:  # grey in three equal channels through three kernels is one channel through their sum
            weights["conv1.weight"] = weights["conv1.weight"].sum(dim=1, keepdim=True)
        weights["fc.weight"], weights["fc.bias"] = model.fc.weight.detach(), model.fc.bias.detach()
        model.load_state_dict(weights)
    return model


def _weights_path() -> Path:
    name: str = WEIGHTS.url.rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _imagenet_weights() -> dict[str, Tensor]:
    path = _weights_path()
    is_on_disk = path.is_file()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch prints what it downloads
            weights: dict[str, Tensor] = WEIGHTS.get_state_dict(progress=False, check_hash=True, weights_only=True)
    # RuntimeError: a file torch cannot read, a download with the wrong hash, or a refused one.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if is_on_disk:
            raise WeightsUnavailable(
                f"the ImageNet weights {path} cannot be read: {error}",
                hint="delete the file so that it is downloaded again, or set pretrained=false",
            ) from error
        raise WeightsUnavailable(
            f"the ImageNet weights of ResNet18 are not at {path} and cannot be downloaded: {error}",
            hint=f"on a machine with network download {WEIGHTS.url} and copy it to {path}, "
            "or move torch's cache with TORCH_HOME, or set pretrained=false",
        ) from error
    return weights
