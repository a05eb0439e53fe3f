"""Mixup and CutMix: pixels and labels are mixed in the same proportion."""

import numpy as np
import pytest
import torch

from fer_sweep.config.trial import AugmentConfig
from fer_sweep.data.mixing import draw_mixing
from fer_sweep.records import FER2013


def drawn(share=1.0, **changes):
    return draw_mixing(AugmentConfig(**changes), 4000, FER2013, np.random.default_rng(0), share=share)


def test_mixup_blends_each_image_with_the_one_opposite_by_weights_from_beta():
    mixing, images = drawn(mixup=0.4), torch.randn(5, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    weight = mixing[7].label
    torch.testing.assert_close(mixing[7].apply(images)[1], weight * images[1] + (1 - weight) * images[3])
    assert float(mixing.label.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(mixing.label.var()) == pytest.approx(0.25 / 1.8, abs=0.01)
    assert drawn() is None


def test_cutmix_pastes_a_rectangle_of_the_partner_and_weighs_the_labels_by_its_area():
    mixing, images = drawn(cutmix=1.0), torch.stack((torch.zeros(1, 48, 48), torch.ones(1, 48, 48)))
    for step in range(100):
        first, second = mixing[step].apply(images)
        assert torch.equal(first, 1.0 - second)
        assert float(1.0 - first.mean()) == pytest.approx(float(mixing[step].label), abs=1e-6)
        rows, columns = first[0].any(1).nonzero(), first[0].any(0).nonzero()
        assert not len(rows) or first[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    covered = torch.stack([mixing[step].apply(images)[0] for step in range(1000)]).mean(0)[0]
    assert 0 < covered[0].mean() < covered[24].mean()
    # Beta(1, 1) is uniform, so half of an image is cut on average, less what lies outside of it.
    assert 0.6 < float(mixing.label.mean()) < 0.75


def test_with_both_each_batch_takes_one_of_them():
    mixing = drawn(mixup=0.4, cutmix=1.0)
    is_cut = mixing.box.any(dim=1)
    assert 0.45 < float(is_cut.float().mean()) < 0.55
    assert (mixing.own[is_cut] == 1.0).all()
    assert torch.equal(mixing.own[~is_cut], mixing.label[~is_cut])


def test_the_last_epochs_are_not_mixed():
    assert [drawn(epoch / 6, mixup=0.4, mix_until=0.5) is None for epoch in range(1, 7)] == 3 * [False] + 3 * [True]
