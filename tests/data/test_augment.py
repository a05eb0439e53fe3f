"""Augmentation: within its bounds, the same for the same seed, and image by image."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fer_sweep.config.trial import AugmentConfig
from fer_sweep.data.augment import ERASED_AREA, Augmentation, draw, draw_mixup, mix

OFF: dict[str, Any] = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "flip": False}
steady = settings(derandomize=True, deadline=None, max_examples=40)


def drawn(count: int = 500, seed: int = 0, **changes: Any) -> Augmentation:
    return draw(AugmentConfig(**{**OFF, **changes}), count, np.random.default_rng(seed))


def faces(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def test_images_stay_as_they_are_without_augmentation() -> None:
    images = faces(4)
    assert drawn(4).apply(images) is images


def test_equal_generators_draw_equally_and_images_differ() -> None:
    everything = {"shift": 0.1, "rotation": 10.0, "scale": 0.1, "flip": True, "erasing": 0.5}
    images = faces(1).expand(8, -1, -1, -1)
    first, second, other = (drawn(8, seed, **everything).apply(images) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len({image.numpy().tobytes() for image in first}) == 8


def test_slice_of_an_augmentation_does_the_same_to_its_images() -> None:
    augmentation = drawn(20, shift=0.2, rotation=20.0, scale=0.2, flip=True, erasing=1.0)
    images = faces(20)
    assert torch.equal(augmentation.apply(images)[7:13], augmentation[7:13].apply(images[7:13]))


@pytest.mark.parametrize("others", [{}, {"scale": 1e-9}])
def test_half_of_the_images_are_mirrored(others: dict[str, float]) -> None:
    images = faces(500)
    out = drawn(flip=True, **others).apply(images)
    kept = [torch.allclose(a, b, atol=1e-4) for a, b in zip(out, images, strict=True)]
    mirrored = [torch.allclose(a, b, atol=1e-4) for a, b in zip(out, images.flip(-1), strict=True)]
    assert sum(kept) + sum(mirrored) == 500
    assert 200 < sum(mirrored) < 300


@steady
@given(st.floats(0, 0.5), st.floats(0, 45), st.floats(0, 0.5), st.booleans(), st.integers(0, 999))
def test_affine_map_stays_within_its_bounds(shift: float, rotation: float, scale: float, flip: bool, seed: int) -> None:
    affine = drawn(50, seed, shift=shift, rotation=rotation, scale=scale, flip=flip).affine
    if affine is None:
        assert shift == rotation == scale == 0
        return
    zoom = 1 / affine[:, :, 0].norm(dim=1)
    assert (zoom >= 1 - scale - 1e-4).all()
    assert (zoom <= 1 + scale + 1e-3).all()
    angle = torch.rad2deg(torch.atan2(-affine[:, 0, 1], affine[:, 1, 1]))
    assert (angle.abs() <= rotation + 1e-3).all()
    assert (affine[:, :, 2].abs() <= 2 * shift + 1e-6).all()
    mirrored = torch.linalg.det(affine[:, :, :2]) < 0
    assert flip or not mirrored.any()


def test_images_are_sampled_as_by_affine_grid() -> None:
    augmentation = drawn(6, shift=0.2, rotation=30.0, scale=0.3, flip=True)
    assert augmentation.affine is not None
    images = faces(6)
    grid = functional.affine_grid(augmentation.affine, [6, 1, 48, 48], align_corners=False)
    expected = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(augmentation.apply(images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_blanks_a_rectangle_of_the_documented_area(probability: float) -> None:
    out = drawn(600, erasing=probability).apply(torch.ones(600, 1, 48, 48))[:, 0]
    areas = []
    for blank in out == 0:
        rows, columns = blank.any(1), blank.any(0)
        assert torch.equal(blank, rows[:, None] & columns[None, :])
        if blank.any():
            assert rows.nonzero().diff(dim=0).eq(1).all()
            assert columns.nonzero().diff(dim=0).eq(1).all()
            areas.append(float(blank.float().mean()))
    assert len(areas) / 600 == pytest.approx(probability, abs=0.06)
    # Sides are whole pixels, and one that would be longer than the image ends at its edge.
    assert min(areas) > ERASED_AREA[0] * 0.8
    assert max(areas) < ERASED_AREA[1] * 1.05
    if probability == 1.0:
        covered = (out == 0).float().mean(0)
        edges = (covered[0], covered[-1], covered[:, 0], covered[:, -1])
        assert all(edge.mean() > 0.005 for edge in edges)
        assert covered[24, 24] > covered[1, 1]


def test_mixup_blends_each_image_with_the_one_opposite() -> None:
    images = faces(5)
    mixed = mix(images, torch.tensor(0.75))
    torch.testing.assert_close(mixed[1], 0.75 * images[1] + 0.25 * images[3])
    assert torch.equal(mix(images, torch.tensor(1.0)), images)


def test_mixup_weights_follow_beta() -> None:
    assert draw_mixup(0.0, 10, np.random.default_rng(0)) is None
    weights = draw_mixup(0.4, 4000, np.random.default_rng(0))
    assert weights is not None
    assert weights.shape == (4000,)
    assert float(weights.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(weights.var()) == pytest.approx(0.25 / 1.8, abs=0.01)
