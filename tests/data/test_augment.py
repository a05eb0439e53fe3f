"""Augmentation: within its bounds, the same for the same seed, and image by image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fer_sweep.config.trial import AugmentConfig
from fer_sweep.data.augment import ERASED_AREA, _grid, _sample, _sample_clamped, draw
from fer_sweep.records import FER2013

OFF = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "flip": False}


def drawn(count=500, seed=0, **changes):
    return draw(AugmentConfig(**{**OFF, **changes}), count, FER2013, np.random.default_rng(seed))


def faces(count):
    return torch.randn(count, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def test_each_image_is_augmented_by_itself_and_by_the_seed():
    everything = {"shift": 0.1, "rotation": 10.0, "scale": 0.1, "flip": True, "erasing": 0.5}
    images = faces(1).expand(8, -1, -1, -1)
    first, second, other = (drawn(8, seed, **everything).apply(images) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len({image.numpy().tobytes() for image in first}) == 8
    assert torch.equal(first[3:6], drawn(8, **everything)[3:6].apply(images[3:6]))
    assert drawn(8).apply(images) is images


@pytest.mark.parametrize("others", [{}, {"scale": 1e-9}])
def test_half_of_the_images_are_mirrored(others):
    images = faces(500)
    out = drawn(flip=True, **others).apply(images)
    kept, mirrored = ((out - wanted).abs().amax(dim=(1, 2, 3)) < 1e-4 for wanted in (images, images.flip(-1)))
    assert (kept ^ mirrored).all()
    assert 200 < mirrored.sum() < 300


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.floats(0, 0.5), st.floats(0, 45), st.floats(0, 0.5), st.booleans(), st.integers(0, 999))
def test_affine_map_stays_within_its_bounds(shift, rotation, scale, flip, seed):
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
    assert flip or (torch.linalg.det(affine[:, :, :2]) > 0).all()


def test_images_are_sampled_as_by_affine_grid():
    augmentation = drawn(6, shift=0.2, rotation=30.0, scale=0.3, flip=True)
    images = faces(6)
    grid = functional.affine_grid(augmentation.affine, [6, 1, 48, 48], align_corners=False)
    expected = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(augmentation.apply(images), expected, rtol=1e-3, atol=1e-3)


def test_sampling_without_border_padding_as_on_mps_gives_the_same_images():
    images = faces(12).view(6, 2, 48, 48)[..., :40]
    grid = _grid(drawn(6, shift=0.4, rotation=30.0, scale=0.3).affine, 48, 40)
    torch.testing.assert_close(_sample_clamped(images, grid), _sample(images, grid), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_blanks_a_rectangle_of_the_documented_area(probability):
    blanks = drawn(600, erasing=probability).apply(torch.ones(600, 1, 48, 48))[:, 0] == 0
    erased = blanks[blanks.any(dim=(1, 2))]
    assert len(erased) / 600 == pytest.approx(probability, abs=0.06)
    for blank in erased:
        rows, columns = blank.any(1).nonzero(), blank.any(0).nonzero()
        assert blank[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    # Sides are whole pixels, and one that would be longer than the image ends at its edge.
    areas = erased.float().mean(dim=(1, 2))
    assert areas.min() > ERASED_AREA[0] * 0.8
    assert areas.max() < ERASED_AREA[1] * 1.05
    covered = erased.float().mean(0)
    assert all(edge.mean() > 0.005 for edge in (covered[0], covered[-1], covered[:, 0], covered[:, -1]))
    assert covered[24, 24] > covered[1, 1]


def test_brightness_and_contrast_move_every_pixel_of_an_image_alike():
    images = faces(600)
    changed = drawn(600, brightness=0.4, contrast=0.2).apply(images)
    deviation, mean = torch.std_mean(changed, dim=(1, 2, 3))
    of_image, its_mean = torch.std_mean(images, dim=(1, 2, 3))
    factors = deviation / of_image
    added = mean - factors * its_mean
    torch.testing.assert_close(changed, factors[:, None, None, None] * images + added[:, None, None, None])
    for values, middle, largest in ((factors, 1.0, 0.2), (added, 0.0, 0.4)):
        assert 0.95 * largest < float((values - middle).abs().max()) < largest + 1e-5
        assert float(values.mean()) == pytest.approx(middle, abs=largest / 10)
