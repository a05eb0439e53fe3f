"""The architectures, one module each, named as in a configuration, whose ``build`` gives the nn.Module."""

import importlib

import torch
from torch import nn

from fer_sweep.config.trial import ResNet18Config, TrialConfig, ViTConfig
from fer_sweep.records import DataSpec


def build_model(config: TrialConfig, spec: DataSpec) -> nn.Module:
    """Build the architecture that a configuration names, on the CPU, with weights from torch's global RNG.

    It maps normalised images (B, C, H, W) float32 to logits (B, K) in the order of the data's classes.

    Raises:
        ConfigError: The configuration does not fit images of this shape.
        WeightsUnavailable: Pretrained weights are neither on disk nor downloadable.
    """
    # Imported only here: torchvision and transformers take seconds, and a trial needs one of them at most.
    model: nn.Module = importlib.import_module(f"fer_sweep.models.{config.model}").build(config, spec)
    return model


def memory_format(config: TrialConfig, device: torch.device) -> torch.memory_format:
    """The fastest memory format of an architecture's weights on a device, which its activations have too."""
    if device.type == "mps":
        # In channels_last its pooling, convolution and BatchNorm give wrong values or abort (pytorch 174345, 175190,
        # 180984: torch 2.10 to 2.13).
        return torch.contiguous_format
    if isinstance(config, ViTConfig) and config.stem == "patch":
        return torch.contiguous_format  # it has one convolution
    if isinstance(config, ResNet18Config) and config.width < _NARROWEST_STRIDED:
        return torch.contiguous_format
    return torch.channels_last


_NARROWEST_STRIDED = 16
"""Channels. Below, the backward pass of a strided 1x1 convolution in channels_last writes beyond its memory where the
batch is odd, on CPUs and more than one thread (torch 2.15: Conv2d(8, 16, 1, stride=2), 35 images)."""
