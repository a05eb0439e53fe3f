"""Mixup and CutMix: each image of a batch is mixed with a partner, and so are their labels.

The partners are the batch in reverse, which is a random pairing because the batch is shuffled already.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fer_sweep.config.trial import AugmentConfig
from fer_sweep.data.augment import inside
from fer_sweep.records import DataSpec


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed: one, or with one dimension more in front, several."""

    own: Tensor
    """(): the weight of an image's own pixels outside the box; 1 for CutMix."""
    box: Tensor
    """(4,) int64: top, bottom, left, right of what is the partner's alone, in pixels, ends excluded; none for mixup."""
    label: Tensor
    """(): the weight of an image's own label."""

    def __getitem__(self, step: int) -> "Mixing":
        return self.each(lambda tensor: tensor[step])

    def apply(self, images: Tensor) -> Tensor:
        """Mix the images (B, C, H, W) of one batch."""
        weights = torch.where(inside(self.box[None], *images.shape[-2:])[0], 0.0, self.own)  # (1, H, W)
        return torch.lerp(images.flip(0), images, weights)

    def tensors(self) -> tuple[Tensor, ...]:
        """Its parts."""
        return (self.own, self.box, self.label)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Mixing":
        """The same with every part changed."""
        return Mixing(*map(change, self.tensors()))


def draw_mixing(
    config: AugmentConfig, steps: int, spec: DataSpec, rng: np.random.Generator, *, share: float
) -> Mixing | None:
    """Draw how each batch of an epoch is mixed.

    CutMix takes a rectangle of the image's own proportions around a random pixel, cut off at the edges, so its labels
    are weighted by the pixels that remain (Yun et al. 2019).

    Args:
        config: What mixes.
        steps: Batches of the epoch.
        spec: Of their images.
        rng: Of the epoch.
        share: Of all epochs, those to the end of this one.

    Returns:
        None if mixup and CutMix are off, or over.
    """
    if share > config.mix_until or not (config.mixup or config.cutmix):
        return None
    own = rng.beta(config.mixup, config.mixup, steps) if config.mixup else np.ones(steps)
    label, boxes = own.copy(), np.zeros((steps, 4), np.int64)
    if config.cutmix:
        cut = rng.random(steps) < 0.5 if config.mixup else np.ones(steps, bool)
        side = np.sqrt(1.0 - rng.beta(config.cutmix, config.cutmix, steps))  # as a fraction of the image's
        edges = []
        for pixels in (spec.height, spec.width):
            centre, half = rng.integers(0, pixels, steps), side * pixels / 2.0
            edges += [np.clip(np.rint(centre - half), 0, pixels), np.clip(np.rint(centre + half), 0, pixels)]
        boxes[cut] = np.stack(edges, axis=1)[cut]
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (spec.height * spec.width)
        own[cut], label[cut] = 1.0, 1.0 - area[cut]
    own, label = own.astype(np.float32), label.astype(np.float32)
    return Mixing(torch.from_numpy(own), torch.from_numpy(boxes), torch.from_numpy(label))
