"""The four architectures, one file each: from a configuration and the data's shape to an nn.Module."""

import torch
from torch import nn

from fer_sweep.config.trial import DeeperCNNConfig, ResNet18Config, SimpleCNNConfig, TrialConfig, ViTConfig
from fer_sweep.records import DataSpec


def build_model(config: TrialConfig, spec: DataSpec) -> nn.Module:
    """Build the architecture that a configuration names, on the CPU, with weights from torch's global RNG.

    It maps normalised images (B, C, H, W) float32 to logits (B, K) in the order of the data's classes.

    Raises:
        ConfigError: The configuration does not fit images of this shape.
        WeightsUnavailable: Pretrained weights are neither on disk nor downloadable.
    """
    # Inner imports: torchvision and transformers take seconds, and a trial needs one of them at most.
    match config:
        case SimpleCNNConfig():
            from fer_sweep.models import simple_cnn

            return simple_cnn.build(config, spec)
        case DeeperCNNConfig():
            from fer_sweep.models import deeper_cnn

            return deeper_cnn.build(config, spec)
        case ResNet18Config():
            from fer_sweep.models import resnet18

            return resnet18.build(config, spec)
        case ViTConfig():
            from fer_sweep.models import vit

            return vit.build(config, spec)


def memory_format(config: TrialConfig) -> torch.memory_format:
    """The fastest memory format of an architecture's weights, which its activations have too."""
    if isinstance(config, ViTConfig):
        return torch.contiguous_format  # it has one convolution
    if isinstance(config, ResNet18Config) and config.width < _NARROWEST_STRIDED:
        return torch.contiguous_format
    return torch.channels_last


_NARROWEST_STRIDED = 16
"""Channels. Below, the backward pass of a strided 1x1 convolution in channels_last writes beyond its memory where the
batch is odd, on CPUs and more than one thread (torch 2.15: Conv2d(8, 16, 1, stride=2), 35 images)."""
