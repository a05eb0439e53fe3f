"""The images of one trial on its device: uint8, indexed and normalised there, with no DataLoader in between."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer_sweep.data.dataset import FaceDataset
from fer_sweep.training.samples import Samples

_NORMALISED_OVER = 2048
"""Training images that mean and standard deviation are taken from, evenly spaced over the sample: five million
pixels give both to three digits in milliseconds, where reading all of FER2013 took longer than starting a trial."""


class Faces:
    """A data set's images and labels on a device, with one trial's choice among them.

    On the CPU the images stay in the memory-mapped file, whose pages all processes share; a GPU gets a copy.
    """

    def __init__(self, dataset: FaceDataset, samples: Samples, device: torch.device) -> None:
        self.train = torch.from_numpy(samples.train).to(device)
        self.gap = torch.from_numpy(samples.gap).to(device)
        self.val = torch.from_numpy(samples.val).to(device)
        with warnings.catch_warnings():
            # The file is mapped read-only, and torch warns that writing would be undefined; nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
            self.images = torch.from_numpy(dataset.images).to(device)
            self.labels = torch.from_numpy(dataset.labels).to(device)
        self.spec = dataset.info.spec
        self.mean, self.std = _statistics(dataset.images, samples.train)

    def batch(self, positions: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) float32 at positions (B,) of the data set."""
        return self.images[positions].view(len(positions), *self.spec.shape).float().sub_(self.mean).div_(self.std)


def batches(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` images into batches; the last may be smaller, and one of a single image is left out.

    BatchNorm cannot be trained on a single image.

    >>> list(batches(7, 3)), [part.stop for part in batches(8, 3)]
    ([slice(0, 3, None), slice(3, 6, None)], [3, 6, 8])
    """
    for start in range(0, count, size):
        if count - start > 1:
            yield slice(start, min(start + size, count))


def _statistics(images: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64]) -> tuple[float, float]:
    # Of raw pixel values, 0 to 255. A data set of one grey level has no deviation to divide by.
    # Counted, because a histogram is exact and a third of the work of numpy's own deviation.
    sample = images[positions[:: math.ceil(len(positions) / _NORMALISED_OVER)]]
    counts, levels = np.bincount(sample.ravel(), minlength=256), np.arange(256)
    mean = float(np.average(levels, weights=counts))
    return mean, max(math.sqrt(np.average((levels - mean) ** 2, weights=counts)), 1.0)
