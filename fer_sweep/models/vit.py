"""ViT (Dosovitskiy et al. 2021): Hugging Face's ViTForImageClassification for small images.

Stochastic depth (Huang et al. 2016) and attention that is fast on the device are added from outside, so that the names
of the weights stay Hugging Face's own. A convolutional stem or a pooling of tokens makes it a FersweepViT, a subclass.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import stochastic_depth
from transformers import AttentionInterface, ViTForImageClassification
from transformers import ViTConfig as HFConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.vit.modeling_vit import ViTAttention, ViTLayer, eager_attention_forward

from fer_sweep.config.trial import ViTConfig
from fer_sweep.errors import WeightsUnavailable
from fer_sweep.models.fersweep_vit import FersweepViTConfig, FersweepViTForImageClassification
from fer_sweep.records import DataSpec

ATTENTION = "fersweep"
"""The name transformers finds ``attend`` under."""
_LARGEST_SCORES = 2**25
"""Attention weights (B * heads * tokens * tokens) that a layer may keep for its backward pass: 64 MB in bf16."""


class ViT(nn.Module):
    """Images (B, C, H, W) to logits (B, K), resized first where the transformer was trained on another size."""

    def __init__(self, transformer: ViTForImageClassification, stochastic_depth_rate: float) -> None:
        super().__init__()
        self.transformer = transformer
        size = transformer.config.image_size
        self.input_size: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[1])
        layers = [module for module in transformer.modules() if isinstance(module, ViTLayer)]
        for number, layer in enumerate(layers):
            layer.register_module("attention", _Attention(layer.attention))
            # Linear from 0 at the first layer to the full rate at the last; a single layer takes the full rate.
            rate = stochastic_depth_rate * (number / (len(layers) - 1) if len(layers) > 1 else 1.0)
            if rate > 0.0:
                layer.register_forward_hook(functools.partial(_skip_branches, rate=rate))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        if images.shape[-2:] != self.input_size:
            images = functional.interpolate(
                images, size=self.input_size, mode="bilinear", align_corners=False, antialias=True
            )
        logits: Tensor = self.transformer(pixel_values=images).logits
        return logits


class _Attention(nn.Module):
    """ViTAttention's weights and its function of tokens (B, N, dim), with query, key and value in one product.

    That and its backward pass read and write the tokens once instead of three times: 4 % of a step on a CPU.
    """

    def __init__(self, attention: ViTAttention) -> None:
        super().__init__()
        self.config = attention.config
        self.head_dim, self.scaling = attention.head_dim, attention.scaling
        self.is_causal, self.dropout = attention.is_causal, attention.attention_dropout
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.o_proj = attention.o_proj

    def forward(self, tokens: Tensor, mask: Tensor | None = None, **more: Any) -> tuple[Tensor, Tensor | None]:
        linears = (self.q_proj, self.k_proj, self.v_proj)
        weights: list[Tensor] = [linear.weight for linear in linears]
        biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
        joined = functional.linear(tokens, torch.cat(weights), torch.cat(biases) if biases else None)
        # Taken apart at their own dimension, whose backward pass lays the three gradients side by side in one copy.
        parts = joined.view(*tokens.shape[:-1], 3, -1, self.head_dim).unbind(-3)
        query, key, value = (part.transpose(1, 2) for part in parts)  # (B, heads, N, head_dim)
        mix = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout if self.training else 0.0
        mixed, scores = mix(self, query, key, value, mask, dropout=dropout, scaling=self.scaling, **more)
        return self.o_proj(mixed.reshape(*tokens.shape[:-1], -1)), scores


def _skip_branches(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor, *, rate: float) -> Tensor:
    if not layer.training:
        return output
    # A layer adds its two branches to its input, so output - input is what they add; a skipped image gets none of it.
    tokens: Tensor = inputs[0]
    kept: Tensor = stochastic_depth(output - tokens, rate, mode="row")
    return tokens + kept


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of (B, heads, tokens, head_dim), one function in three forms.

    A GPU has its fused kernel, which ignores or refuses dropout on MPS: there, two batched multiplications take its
    place. On a CPU its backward pass in bf16 takes twenty times as long as those (60 % of a training step), so they are
    used while the attention weights are few enough to keep, and the kernel in fp32 beyond that.
    """
    device = query.device.type
    if device == "cpu":
        is_spelt_out = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] <= _LARGEST_SCORES
    else:
        is_spelt_out = device != "cuda" and bool(more.get("dropout"))
    if is_spelt_out:
        spelt_out: tuple[Tensor, Tensor] = eager_attention_forward(module, query, key, value, mask, **more)
        return spelt_out
    if device != "cpu":
        fused: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **more)
        return fused
    with torch.autocast("cpu", enabled=False):
        wide, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **more)
    return wide.to(query.dtype), None


AttentionInterface.register(ATTENTION, attend)


def build(config: ViTConfig, spec: DataSpec) -> nn.Module:
    """The transformer, from random weights in the configuration's sizes or from pretrained ones in their own.

    Raises:
        ConfigError: ``patch_size`` does not divide the sides of the images.
        WeightsUnavailable: ``pretrained`` names no folder or hub model that can be loaded as a ViT.
    """
    common: dict[str, Any] = {
        "num_labels": len(spec.classes),
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "attn_implementation": ATTENTION,
    }
    if config.pretrained is not None:
        transformer = _pretrained(config.pretrained, common, spec)
    else:
        config.check_image_size(spec.height, spec.width)
        sizes: dict[str, Any] = {
            "image_size": spec.height if spec.height == spec.width else (spec.height, spec.width),
            "patch_size": config.patch_size,
            "num_channels": spec.channels,
            "hidden_size": config.dim,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.dim // config.head_dim,
            "intermediate_size": round(config.dim * config.mlp_ratio),
        }
        if config.stem == "patch" and config.pool == "cls":
            transformer = ViTForImageClassification(HFConfig(**sizes, **common))
        else:
            own = FersweepViTConfig(**sizes, **common, stem=config.stem, pool=config.pool)
            transformer = FersweepViTForImageClassification(own)
            if config.stem == "conv":
                _initialise_convolutions(transformer)
    return ViT(transformer, config.stochastic_depth)


def _initialise_convolutions(transformer: ViTForImageClassification) -> None:
    """He's initialisation (He et al. 2015), as in the other architectures.

    The outputs would be the same with Hugging Face's deviation of 0.02, because BatchNorm follows. But the smaller the
    weights, the more a step of the optimizer turns them: at 0.02 the first convolution's would be a third of these.
    """
    for module in transformer.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _pretrained(name: str, settings: dict[str, Any], spec: DataSpec) -> ViTForImageClassification:
    try:
        model, report = _load(name, settings)
        # Weights of another kind of model are left at random with no more than a line in the log.
        if absent := [key for key in report["missing_keys"] if not key.startswith("classifier.")]:
            raise ValueError(f"its weights are not a ViT's: {len(absent)} are missing, such as {min(absent)}")
    except MemoryError:
        raise
    except Exception as error:  # over a config.json or weights that are no ViT's transformers raises a dozen kinds
        where = f"in the folder {name}" if Path(name).is_dir() else f"under the name {name}, on disk or on the hub"
        raise WeightsUnavailable(
            f"no ViT with safetensors weights can be loaded {where}: {error}",
            hint="give a folder with config.json and model.safetensors (save_pretrained writes them), "
            f"or on a machine with network run `hf download {name}` and copy its Hugging Face cache here "
            "(HF_HOME names the place), or leave pretrained out",
        ) from error
    if spec.channels == 1:
        _sum_channels(model)
    return model


def _load(name: str, settings: dict[str, Any]) -> tuple[ViTForImageClassification, dict[str, Any]]:
    """The model, and transformers' report on its weights."""
    untyped: Any = ViTForImageClassification.from_pretrained  # typed as if it never gave a report
    load: Callable[..., tuple[ViTForImageClassification, dict[str, Any]]] = functools.partial(
        untyped,
        name,
        ignore_mismatched_sizes=True,  # the classifier, which is another one for the classes here
        use_safetensors=True,  # never a pickle
        trust_remote_code=False,
        output_loading_info=True,
        **settings,
    )
    try:
        # For weights that are on disk, asking the hub delays each trial, or hangs behind a firewall, and could give
        # later trials of a sweep other weights than the first.
        return load(local_files_only=True)
    except OSError:
        return load()


def _sum_channels(model: ViTForImageClassification) -> None:
    patches = model.vit.embeddings.patch_embeddings
    if patches.num_channels == 1:
        return
    # A grey face repeated over the channels through one kernel a channel is one channel through their sum.
    old = patches.projection
    old.weight = nn.Parameter(old.weight.detach().sum(dim=1, keepdim=True))
    old.in_channels = 1
    patches.num_channels = model.config.num_channels = 1
