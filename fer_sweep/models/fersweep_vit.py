"""FersweepViT: Hugging Face's ViT with a convolutional stem, or with another pooling than the class token.

An export of such a model holds a copy of this file, which transformers loads with ``trust_remote_code=True``. So it
needs torch and transformers only. The names of all other weights are those of ViTForImageClassification.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import can_return_tuple


class FersweepViTConfig(ViTConfig):  # type: ignore[no-untyped-call] # transformers leaves it untyped
    """ViTConfig with two fields more."""

    model_type = "fersweep_vit"  # not vit: without this file transformers would load a part of the weights as a ViT

    stem: str = "patch"
    """What makes the tokens: ``patch``, ViT's projection, or ``conv``, a ConvStem."""
    pool: str = "cls"
    """What the classifier reads: the class token (``cls``), or the patch tokens' ``mean`` or weighted mean
    (``sequence``)."""


class ConvStem(nn.Module):
    """Images (B, C, H, W) to tokens (B, N, dim): 3x3 convolutions of stride 2, each followed by BatchNorm.

    A ReLU stands between two of them, and none after the last, as in LeViT (Graham et al. 2021). Each halves height and
    width, so log2(patch_size) of them give as many tokens as patches; the last has ``dim`` channels, each one before
    it half as many as the next.
    """

    def __init__(self, config: FersweepViTConfig) -> None:
        super().__init__()
        assert isinstance(config.patch_size, int)
        count = config.patch_size.bit_length() - 1
        channels = [config.num_channels, *(config.hidden_size >> later for later in reversed(range(count)))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels[:-1]):
            layers += [_conv(before, after), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.projection = _conv(channels[-2], channels[-1])  # ViTModel asks for the type of this one's weights
        self.norm = nn.BatchNorm2d(channels[-1])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Tokens (B, H / patch_size * W / patch_size, dim) of images (B, C, H, W), row by row."""
        found: Tensor = self.norm(self.projection(self.layers(pixel_values)))
        return found.flatten(2).transpose(1, 2)


def _conv(before: int, after: int) -> nn.Conv2d:
    # No bias: BatchNorm takes the mean away again.
    return nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)


class FersweepViTForImageClassification(ViTForImageClassification):  # type: ignore[no-untyped-call] # as above
    """Images (B, C, H, W) to logits (B, K).

    The class token is there in any case; where the patch tokens are pooled, it is one token more that they attend to,
    as in BEiT (Bao et al. 2022).
    """

    config_class = FersweepViTConfig

    def __init__(self, config: FersweepViTConfig) -> None:
        super().__init__(config)
        if config.stem == "conv":
            self.vit.embeddings.register_module("patch_embeddings", ConvStem(config))
        if config.pool == "sequence":
            # No bias: added to every token's score, softmax takes it away again.
            self.token_score = nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()  # type: ignore[no-untyped-call] # as above

    @can_return_tuple  # type: ignore[untyped-decorator] # as above
    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, **more: Any
    ) -> ImageClassifierOutput:
        """As ViTForImageClassification's."""
        found = self.vit(pixel_values, **more)
        logits = self.classifier(self._pooled(found.last_hidden_state))
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **more)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=found.hidden_states, attentions=found.attentions
        )

    def _pooled(self, tokens: Tensor) -> Tensor:
        """What the classifier reads (B, dim) of normalised tokens (B, 1 + N, dim)."""
        if self.config.pool == "cls":
            return tokens[:, 0]
        patches = tokens[:, 1:]
        if self.config.pool == "mean":
            return patches.mean(dim=1)
        # CCT's sequence pooling (Hassani et al. 2021).
        weights = torch.softmax(self.token_score(patches), dim=1)  # (B, N, 1)
        return (weights.transpose(1, 2) @ patches).squeeze(1)
