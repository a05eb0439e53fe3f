"""Drawn faces that need no download: seven expressions with pose, light, occlusion and noise.

An expression is seven numbers (brows, eyes, mouth, wrinkles) drawn around its class's mean; the classes' spreads
overlap and some faces are barely expressive, so a small network learns a good part of it and never all, and a large
one can overfit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_sweep.config.trial import IMAGE_SIZE
from fer_sweep.data.dataset import Split
from fer_sweep.records import CLASSES

Floats = npt.NDArray[np.floating[Any]]
Uniform = Callable[[float, float], Floats]
"""Draws one number a face between two bounds, shaped to broadcast over its pixels: (B, 1, 1)."""

VERSION = 2
"""Raised whenever other faces are drawn, so that a cached older set is drawn again."""
SIZES = {Split.TRAIN: 4096, Split.VAL: 1024, Split.TEST: 1024}
CLASS_SHARES = (0.14, 0.08, 0.14, 0.20, 0.15, 0.13, 0.16)
"""In the order of CLASSES: as unequal as FER2013's, more mildly."""

_EXPRESSIONS = np.array(
    # brow tilt (inner end down), brow height, eye opening, mouth corners up, mouth opening, mouth width, nose wrinkles
    [
        [1.0, -0.6, 0.0, -0.5, 0.0, 0.0, 0.4],  # angry
        [0.5, -0.4, -0.7, -0.5, 0.2, -0.3, 1.2],  # disgust
        [-0.7, 0.5, 0.7, -0.3, 0.5, 0.3, 0.0],  # fear
        [0.0, 0.0, -0.4, 1.1, 0.4, 0.7, 0.1],  # happy
        [-0.9, 0.0, -0.4, -0.9, -0.1, -0.2, 0.0],  # sad
        [-0.1, 1.0, 1.0, 0.0, 1.1, -0.7, 0.0],  # surprise
        [0.0, 0.0, 0.0, 0.0, -0.1, 0.0, 0.0],  # neutral
    ],
    dtype=np.float32,
)
_SPREAD = 0.34
"""Standard deviation of every one of the numbers above, within a class."""
_BATCH = 256


def draw_dataset(
    seed: int = 0, sizes: dict[Split, int] | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Images (N, 48, 48), labels (N,) and splits (N,), in random order of classes within a split.

    Equal seeds give equal faces. ``sizes`` are images by split in place of SIZES.
    """
    generator = np.random.default_rng(seed)
    labels, splits = [], []
    for split, size in (sizes or SIZES).items():
        exact = np.cumsum(np.array(CLASS_SHARES) * size).round().astype(int)
        of_split = np.repeat(np.arange(len(CLASSES)), np.diff(exact, prepend=0))
        labels.append(generator.permutation(of_split))
        splits.append(np.full(len(of_split), split, dtype=np.uint8))
    all_labels = np.concatenate(labels).astype(np.int64)
    return draw(all_labels, generator), all_labels, np.concatenate(splits)


def draw(labels: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one face for every label: (N,) -> (N, 48, 48) grey values."""
    batches = [_draw_batch(labels[i : i + _BATCH], generator) for i in range(0, len(labels), _BATCH)]
    return np.concatenate(batches) if batches else np.empty((0, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)


def _draw_batch(labels: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    count = len(labels)

    def uniform(low: float, high: float) -> Floats:
        return generator.uniform(low, high, (count, 1, 1)).astype(np.float32)

    intensity = uniform(0.45, 1.25)[:, :, 0]
    spread = generator.normal(0.0, _SPREAD, (count, _EXPRESSIONS.shape[1])).astype(np.float32)
    expression = (_EXPRESSIONS[labels] * intensity + spread).T[:, :, None, None]  # 7 x (B, 1, 1)

    x, y = _posed_grid(uniform)
    picture = _background_and_head(x, y, uniform)
    skin = picture.mean(axis=(1, 2), keepdims=True)
    yaw = uniform(-0.12, 0.12)  # a turned head moves the features sideways within its outline
    _draw_features(picture, x - yaw, y, expression, skin, uniform)
    _draw_occlusion(picture, x, y, uniform)

    angle, strength = uniform(-np.pi, np.pi), uniform(0.0, 0.45)
    picture *= 1.0 + strength * (x * np.cos(angle) + y * np.sin(angle))
    picture = (picture - 0.5) * uniform(0.6, 1.15) + 0.5 + uniform(-0.12, 0.12)
    picture += uniform(0.015, 0.07) * generator.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(picture, 0.0, 1.0) * 255.0).round().astype(np.uint8)


def _posed_grid(uniform: Uniform) -> tuple[Floats, Floats]:
    """Face coordinates of every pixel, each (B, 48, 48): the face spans about -1..1, y down."""
    axis = ((np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5) / IMAGE_SIZE * 2.0 - 1.0) * 1.1
    column, row = axis[None, None, :], axis[None, :, None]
    angle, size = uniform(-0.25, 0.25), uniform(0.85, 1.15)  # angle in radians
    column, row = column - uniform(-0.12, 0.12), row - uniform(-0.12, 0.12)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    return cos * column + sin * row, -sin * column + cos * row


def _background_and_head(x: Floats, y: Floats, uniform: Uniform) -> Floats:
    skin = uniform(0.42, 0.85)
    picture = uniform(0.05, 0.95) + uniform(-0.15, 0.15) * x + uniform(-0.15, 0.15) * y
    width, height = uniform(0.62, 0.80), uniform(0.86, 1.0)
    hair = skin * uniform(0.15, 0.9)
    _paint(picture, _ellipse(x, y + 0.08, width + 0.1, height + 0.08), hair, 1.0)
    _paint(picture, _ellipse(x, y - uniform(0.0, 0.12), width, height), skin, 1.0)
    return picture


def _draw_features(picture: Floats, x: Floats, y: Floats, expression: Floats, skin: Floats, uniform: Uniform) -> None:
    tilt, height, opening, corners, mouth_opening, mouth_width, wrinkles = expression
    dark = skin * uniform(0.15, 0.4)
    eye_x, eye_y = uniform(0.27, 0.35), uniform(-0.26, -0.16)
    eye_height = np.clip(0.085 + 0.045 * opening, 0.015, 0.16)
    brow_y = eye_y - 0.19 - 0.07 * height
    brow_width, brow_ink = uniform(0.025, 0.05), uniform(0.5, 1.0)
    mirrored = np.abs(x)  # left and right at once: the halves of a face are alike but for light, yaw and noise
    from_eye = mirrored - eye_x

    _paint(picture, _ellipse(from_eye, y - eye_y, 0.16, eye_height), np.minimum(skin + 0.25, 0.98), 0.9)
    gaze = uniform(-0.05, 0.05)
    pupil = _ellipse(np.minimum(np.abs(x - eye_x - gaze), np.abs(x + eye_x - gaze)), y - eye_y, 0.07, 0.08)
    _paint(picture, np.maximum(pupil, _ellipse(from_eye, y - eye_y, 0.16, eye_height)), dark * 0.6, 1.0)
    lid = np.abs(y - eye_y + eye_height * (1.0 - (from_eye / 0.2) ** 2))
    _paint(picture, np.maximum(lid - 0.02, np.abs(from_eye) - 0.18), dark, 0.8)

    brow = np.abs(y - brow_y + 0.55 * tilt * 0.2 * from_eye / 0.2 + 0.5 * from_eye**2)
    _paint(picture, np.maximum(brow - brow_width, np.abs(from_eye) - 0.2), dark, brow_ink)

    nose = np.maximum(np.abs(mirrored - 0.05 - 0.12 * np.clip(y + 0.1, 0.0, 1.0)) - 0.015, np.abs(y - 0.08) - 0.16)
    _paint(picture, nose, skin * 0.7, uniform(0.2, 0.6))
    crease = np.maximum(np.abs(mirrored - 0.16 - 0.5 * (y - 0.12)) - 0.022, np.abs(y - 0.14) - 0.12)
    _paint(picture, crease, dark, np.clip(0.55 * wrinkles, 0.0, 0.9))

    mouth_y, half = uniform(0.44, 0.54), np.clip(0.30 + 0.07 * mouth_width, 0.14, 0.46)
    bend = 0.16 * corners * ((x / half) ** 2 - 0.4)  # corners up is towards smaller y
    gap = np.clip(0.02 + 0.085 * mouth_opening, 0.012, 0.2) * np.sqrt(np.clip(1.0 - (x / half) ** 2, 0.0, 1.0))
    lips = np.abs(y - mouth_y + bend) - gap
    inside = np.abs(x) - half
    _paint(picture, np.maximum(lips - 0.035, inside), skin * uniform(0.5, 0.8), 0.9)
    _paint(picture, np.maximum(lips, inside), dark, 1.0)
    teeth = np.maximum(np.abs(y - mouth_y + bend + 0.5 * gap) - 0.35 * gap, inside + 0.05)
    _paint(
        picture, teeth, np.minimum(skin + 0.3, 1.0), uniform(0.0, 1.0) * (gap.max(axis=(1, 2), keepdims=True) > 0.05)
    )


def _draw_occlusion(picture: Floats, x: Floats, y: Floats, uniform: Uniform) -> None:
    # A tenth wear dark-rimmed glasses, a tenth have a hand or scarf over some part.
    rim = np.abs(_ellipse(np.abs(x) - 0.31, y + 0.2, 0.24, 0.2)) - 0.02
    _paint(picture, rim, uniform(0.0, 0.3), (uniform(0.0, 1.0) < 0.1).astype(np.float32))
    patch = _ellipse(x - uniform(-0.7, 0.7), y - uniform(-0.7, 0.7), uniform(0.15, 0.4), uniform(0.15, 0.4))
    _paint(picture, patch, uniform(0.1, 0.9), (uniform(0.0, 1.0) < 0.1).astype(np.float32))


def _ellipse(x: Floats, y: Floats, width: Floats | float, height: Floats | float) -> Floats:
    """Roughly the distance to an ellipse's outline, negative inside."""
    radius = np.sqrt((x / width) ** 2 + (y / height) ** 2)
    return np.asarray((radius - 1.0) * np.minimum(width, height), dtype=np.float32)


def _paint(picture: Floats, distance: Floats, grey: Floats, opacity: Floats | float) -> None:
    """Blend a grey value in where ``distance`` is negative, with an edge about a pixel wide."""
    cover = np.clip(0.5 - distance / 0.05, 0.0, 1.0) * opacity
    picture += cover * (grey - picture)
