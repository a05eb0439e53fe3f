"""The four architectures, one file each: a configuration in, a module from (B, 1, 48, 48) to (B, 7) logits out."""

import torch
from torch import nn

from fer_sweep.config.trial import DeeperCNNConfig, ResNet18Config, SimpleCNNConfig, TrialConfig, ViTConfig


def build_model(config: TrialConfig) -> nn.Module:
    """Build the architecture a configuration asks for, on the CPU, with weights from torch's global RNG.

    Args:
        config: Any of the four architectures; its size fields and ``dropout`` are read, nothing else.

    Returns:
        A module that maps normalised faces (B, 1, 48, 48) float32 to logits (B, 7) in the order of
        ``records.CLASSES``.

    Raises:
        WeightsUnavailable: Pretrained weights are asked for and are neither on disk nor downloadable.
    """
    # Inner imports: torchvision and transformers take seconds, and a trial needs one of them at most.
    match config:
        case SimpleCNNConfig():
            from fer_sweep.models import simple_cnn

            return simple_cnn.build(config)
        case DeeperCNNConfig():
            from fer_sweep.models import deeper_cnn

            return deeper_cnn.build(config)
        case ResNet18Config():
            from fer_sweep.models import resnet18

            return resnet18.build(config)
        case ViTConfig():
            from fer_sweep.models import vit

            return vit.build(config)


def memory_format(config: TrialConfig) -> torch.memory_format:
    """The order of an architecture's weights in memory, and so of what goes through it, that it is fastest in."""
    if isinstance(config, ViTConfig):
        return torch.contiguous_format  # it has one convolution
    if isinstance(config, ResNet18Config) and config.width < _NARROWEST_STRIDED:
        return torch.contiguous_format
    return torch.channels_last


_NARROWEST_STRIDED = 16
"""Channels. Below, the backward pass of a strided 1x1 convolution in channels_last writes beyond its memory where the
batch is odd, on CPUs and more than one thread (torch 2.15: Conv2d(8, 16, 1, stride=2), 35 images)."""
