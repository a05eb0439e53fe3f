"""What is wrong with a data set: imbalance, blanks, copies, copies across splits, conflicting labels."""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from fer_sweep.data.dataset import FaceDataset, Split

NEAR = 0.97
"""Cosine of two faces' 16x16 thumbnails, each less its mean, from which they count as near copies."""
FEW = 5_000
"""Training images of a fast first trial: of FER2013 a sixth."""
_THUMBNAIL = 16
_CHUNK = 256
"""Images handled at once: 30 MB of cosines to all training images of FER2013."""


class AuditReport(BaseModel):
    """The figures of one data set."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    fingerprint: str
    official_split: bool
    """Whether the splits are FER2013's own."""
    images: int
    """In all splits."""
    counts: dict[str, dict[str, int]]
    """Images by split (train, val, test) and class."""
    majority_share: dict[str, float]
    """Share of the most frequent class, by split; 0 for an empty split. A collapsed model scores this."""
    imbalance: float
    """Training images of the most frequent class over those of the rarest there is."""
    blanks: int
    """Images of one grey value all over."""
    unique: int
    """Images that differ in at least one pixel."""
    redundant_copies: int
    """images - unique: what leaving one of each group of copies would remove."""
    conflicting_groups: int
    """Groups of exact copies that carry different labels."""
    conflicting_images: int
    """Images in those groups."""
    exact_copies_in_train: dict[str, int]
    """Of val and of test: images that are an exact copy of a training image."""
    near_copies_in_train: dict[str, int]
    """Of val and of test: images that are an exact or near copy of a training image or of its mirror image."""
    train_mean: float
    """Mean of the training split's pixels in [0, 1]."""
    train_std: float
    """Their standard deviation."""

    def lines(self) -> list[list[str]]:
        """The report but for the counts by class, as rows of a name and a figure."""
        rows = [["images", f"{self.images:,}"]]
        for split, classes in self.counts.items():
            size = sum(classes.values())
            if size:
                rows.append([split, f"{size:,}"])
                rows.append([f"{split}, most frequent class", f"{self.majority_share[split]:.1%}"])
            else:
                rows.append([split, "none"])
        rows += [
            ["splits", "FER2013's official ones" if self.official_split else "not FER2013's official ones"],
            ["training classes, most over fewest", f"{self.imbalance:.1f}"],
            ["blank images", f"{self.blanks:,}"],
            ["exact copies", f"{self.redundant_copies:,} redundant, {self.unique:,} unique images"],
        ]
        conflicts = f"{self.conflicting_groups:,} groups, {self.conflicting_images:,} images"
        rows.append(["copies with conflicting labels", conflicts])
        for split, exact in self.exact_copies_in_train.items():
            size, near = sum(self.counts[split].values()), self.near_copies_in_train[split]
            if size:
                figure = f"{exact:,} exact ({exact / size:.1%}), {near:,} with near copies and mirrors"
                rows.append([f"{split} images also in training", f"{figure} ({near / size:.1%})"])
        pixels = f"mean {self.train_mean:.4f}, standard deviation {self.train_std:.4f}"
        return [*rows, ["training pixels in [0, 1]", pixels]]

    def next_steps(self) -> list[tuple[str, str]]:
        """What to do about the figures: reasons, each with its command."""
        create = f"fersweep create simple_cnn --data {self.name}"
        training, copies = sum(self.counts["train"].values()), self.exact_copies_in_train["val"]
        steps = []
        if copies:
            reason = f"{copies:,} val images are in training too; drop_val_copies leaves them out there"
            steps.append((reason, f"{create} --set drop_val_copies=true"))
        if training > 2 * FEW:
            reason = f"train_samples takes {FEW:,} of the {training:,} training images, for fast first trials"
            steps.append((reason, f"{create} --set train_samples={FEW}"))
        return steps


def audit(dataset: FaceDataset) -> AuditReport:
    """Measure a data set; takes seconds for FER2013 and some 100 MB beside its images."""
    images, labels, groups = np.asarray(dataset.images), dataset.labels, dataset.groups
    flat = images.reshape(len(images), -1)
    training = dataset.indices(Split.TRAIN)
    held_out = {split.name.lower(): dataset.indices(split) for split in (Split.VAL, Split.TEST)}
    exact = {name: np.isin(groups[chosen], groups[training]) for name, chosen in held_out.items()}
    thumbnails = _thumbnails(images)
    near = {name: _near_any(thumbnails[chosen], thumbnails[training]) for name, chosen in held_out.items()}
    conflicting = _conflicting(groups, labels)
    unique = len(np.unique(groups))
    present = [count for count in dataset.info.counts["train"].values() if count]
    mean, std = _pixel_statistics(images, training)
    return AuditReport(
        name=dataset.name,
        fingerprint=dataset.info.fingerprint,
        official_split=dataset.info.official_split,
        images=len(images),
        counts=dataset.info.counts,
        majority_share={
            split: max(classes.values()) / max(sum(classes.values()), 1)
            for split, classes in dataset.info.counts.items()
        },
        imbalance=max(present) / min(present),
        blanks=int((flat.max(axis=1) == flat.min(axis=1)).sum()),
        unique=unique,
        redundant_copies=len(images) - unique,
        conflicting_groups=len(conflicting),
        conflicting_images=int(np.isin(groups, conflicting).sum()),
        exact_copies_in_train={name: int(found.sum()) for name, found in exact.items()},
        near_copies_in_train={name: int((found | near[name]).sum()) for name, found in exact.items()},
        train_mean=mean,
        train_std=std,
    )


def _conflicting(groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers of the groups that have more than one label."""
    pairs = np.unique(np.stack((groups, labels)), axis=1)
    numbers, kinds = np.unique(pairs[0], return_counts=True)
    return numbers[kinds > 1]


def _thumbnails(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Means of blocks, less the image's mean, at length 1 (0 for a blank): (N, ..., H, W) -> (N, 16, 16).

    Pixels beyond the last whole block at the right and at the bottom are left out.
    """
    high, wide = (side // _THUMBNAIL for side in images.shape[-2:])
    whole = images[..., : high * _THUMBNAIL, : wide * _THUMBNAIL]
    blocks = whole.reshape(len(images), -1, _THUMBNAIL, high, _THUMBNAIL, wide)
    small = np.einsum("ncibjd->nij", blocks, dtype=np.float32, casting="unsafe")
    small -= small.mean(axis=(1, 2), keepdims=True)
    lengths = np.sqrt((small**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(small / np.maximum(lengths, 1e-6), dtype=np.float32)


def _near_any(queries: npt.NDArray[np.float32], keys: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which thumbnails come near any of the keys, as they are or mirrored: (Q, 16, 16), (K, 16, 16) -> (Q,)."""
    flat_keys = keys.reshape(len(keys), -1).T
    found = np.zeros(len(queries), dtype=bool)
    for start in range(0, len(queries), _CHUNK):
        chunk = queries[start : start + _CHUNK]
        for view in (chunk, chunk[:, :, ::-1]):
            cosines = view.reshape(len(chunk), -1) @ flat_keys
            found[start : start + _CHUNK] |= cosines.max(axis=1) >= NEAR
    return found


def _pixel_statistics(images: npt.NDArray[np.uint8], chosen: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation over all pixels of some images, exactly, from counts of the 256 grey values."""
    histogram = np.zeros(256, dtype=np.int64)
    for start in range(0, len(chosen), _CHUNK):
        histogram += np.bincount(images[chosen[start : start + _CHUNK]].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    mean = float((histogram * values).sum() / histogram.sum())
    return mean, float(np.sqrt((histogram * (values - mean) ** 2).sum() / histogram.sum()))
