"""Augmentation of whole batches on any device: shift, rotation, scale, flip, brightness, contrast, erasing.

What happens to every image of an epoch is drawn beforehand, as a pure function of a random generator. So an
epoch that is resumed in the middle sees the same images, and the device never waits for the host.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fer_sweep.config.trial import AugmentConfig
from fer_sweep.records import DataSpec

ERASED_AREA = (0.02, 0.33)
"""Smallest and largest share of the image that erasing blanks (Zhong et al. 2020)."""
ERASED_ASPECT = (0.3, 3.3)
"""Smallest and largest height over width of the blanked rectangle."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to n images; a part that is switched off is None."""

    affine: Tensor | None
    """(n, 2, 3) float32: output coordinates in [-1, 1] to input coordinates, as grid_sample reads them."""
    flips: Tensor | None
    """(n,) bool: mirrored left to right; only without ``affine``, which contains the flips otherwise."""
    boxes: Tensor | None
    """(n, 4) int64: top, bottom, left, right of the blanked rectangle in pixels, ends excluded."""
    jitter: Tensor | None
    """(n, 2) float32: what a normalised image is multiplied by (contrast), and what is added then (brightness)."""

    def __getitem__(self, part: slice) -> "Augmentation":
        return self._each(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> "Augmentation":
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def apply(self, images: Tensor) -> Tensor:
        """Augment normalised images (n, C, H, W) float32; blanked pixels become 0, the mean."""
        if self.affine is not None:
            # Border: what comes in from outside continues the picture's edge instead of framing it.
            sample = _sample_clamped if images.device.type == "mps" else _sample
            images = sample(images, _grid(self.affine, *images.shape[-2:]))
        if self.flips is not None:
            images = torch.where(self.flips[:, None, None, None], images.flip(-1), images)
        if self.jitter is not None:
            factors, added = self.jitter[:, :, None, None, None].unbind(1)
            images = torch.addcmul(added, images, factors)
        if self.boxes is not None:
            images = images.masked_fill(inside(self.boxes, *images.shape[-2:]), 0.0)
        return images

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Its parts."""
        return (self.affine, self.flips, self.boxes, self.jitter)

    def copy(self) -> "Augmentation":
        """The same in memory of its own."""
        return self._each(torch.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Augmentation":
        return Augmentation(*(None if tensor is None else change(tensor) for tensor in self.tensors()))


def draw(config: AugmentConfig, count: int, spec: DataSpec, rng: np.random.Generator) -> Augmentation:
    """Draw what is done to ``count`` images of a data set, each independently of the others."""
    flips = rng.random(count) < 0.5 if config.flip else None
    affine = None
    if config.shift or config.rotation or config.scale:
        affine = torch.from_numpy(_draw_affine(config, count, flips, spec.width / spec.height, rng))
        flips = None
    return Augmentation(
        affine=affine,
        flips=None if flips is None else torch.from_numpy(flips),
        boxes=torch.from_numpy(_draw_boxes(config.erasing, count, spec, rng)) if config.erasing else None,
        jitter=torch.from_numpy(_draw_jitter(config, count, rng)) if config.brightness or config.contrast else None,
    )


def _draw_affine(
    config: AugmentConfig, count: int, flips: npt.NDArray[np.bool_] | None, aspect: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation, count))
    zoom = rng.uniform(1.0 - config.scale, 1.0 + config.scale, count)
    shift = rng.uniform(-config.shift, config.shift, (count, 2))
    # The map goes from output to input: a face twice as large is read at half the pace.
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    mirror = np.ones(count) if flips is None else np.where(flips, -1.0, 1.0)
    affine = np.empty((count, 2, 3), np.float32)
    affine[:, 0, 0], affine[:, 0, 1] = cosine * mirror, -sine / aspect
    affine[:, 1, 0], affine[:, 1, 1] = sine * mirror * aspect, cosine
    affine[:, :, 2] = 2.0 * shift  # either side is 2 long in these coordinates
    return affine


def _draw_jitter(config: AugmentConfig, count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    factors = 1.0 + rng.uniform(-config.contrast, config.contrast, count)
    return np.stack((factors, rng.uniform(-config.brightness, config.brightness, count)), axis=1).astype(np.float32)


def _draw_boxes(probability: float, count: int, spec: DataSpec, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    erased = rng.random(count) < probability
    area = rng.uniform(*ERASED_AREA, count) * (spec.height * spec.width)
    aspect = np.exp(rng.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), count))
    height = np.clip(np.rint(np.sqrt(area * aspect)), 1, spec.height) * erased
    width = np.clip(np.rint(np.sqrt(area / aspect)), 1, spec.width) * erased
    top = np.floor(rng.random(count) * (spec.height - height + 1))
    left = np.floor(rng.random(count) * (spec.width - width + 1))
    return np.stack((top, top + height, left, left + width), axis=1).astype(np.int64)


def _grid(affine: Tensor, height: int, width: int) -> Tensor:
    # (n, H, W, 2), what functional.affine_grid gives, in less than half of its time on a CPU: rows and columns
    # are multiplied apart and only their sum has full size.
    columns, rows = _centres(width, affine), _centres(height, affine)
    across = affine[:, None, None, :, 0] * columns[:, None]
    down = affine[:, None, None, :, 1] * rows[:, None, None] + affine[:, None, None, :, 2]
    return across + down


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _sample_clamped(images: Tensor, grid: Tensor) -> Tensor:
    """The same without the border padding, which torch has on MPS only since 2.13: nothing outside is asked for."""
    across, down = (
        side.clamp(1.0 / size - 1.0, 1.0 - 1.0 / size)
        for side, size in zip(grid.unbind(-1), reversed(images.shape[-2:]), strict=True)
    )
    return functional.grid_sample(images, torch.stack((across, down), dim=-1), align_corners=False)


def _centres(count: int, like: Tensor) -> Tensor:
    return (2.0 * torch.arange(count, device=like.device, dtype=like.dtype) + 1.0) / count - 1.0


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels (n, 1, H, W) of images lie in their boxes (n, 4): top, bottom, left, right, ends excluded."""
    y, x = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    top, bottom, left, right = (edge[:, None] for edge in boxes.unbind(1))
    rows = (y >= top) & (y < bottom)
    columns = (x >= left) & (x < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
