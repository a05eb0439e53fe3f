"""The audit: planted defects are counted, and the figures of FER2013 come out of the real images."""

import numpy as np
import pytest

from fer_sweep.data import store
from fer_sweep.data.audit import audit
from fer_sweep.data.cache import open_dataset, prepare
from fer_sweep.data.dataset import FaceDataset, RawFaces
from fer_sweep.data.synthetic import draw


def report_of(images, labels, splits):
    store.save(FaceDataset.of("planted", "x", RawFaces("x", images, labels, splits)), replace=True)
    return audit(open_dataset("planted"))


def test_planted_defects_are_counted():
    labels = np.arange(100) % 7
    images = draw(labels, np.random.default_rng(1))
    splits = np.repeat(np.array([0, 1, 2], np.uint8), [60, 20, 20])
    images[10], labels[10] = images[3], labels[3]  # a copy in training
    images[11], labels[11] = images[4], (labels[4] + 1) % 7  # a copy with another label
    images[[20, 85]] = 128  # two blanks, which are copies of one another
    images[61] = images[5]  # validation holds a training image
    images[62] = images[6][:, ::-1]  # its mirror image
    images[63] = np.clip(images[7].astype(int) + 3, 0, 255)  # nearly one
    images[65] = images[64]  # validation holds a copy of its own
    images[81] = images[61]  # test holds one that validation and training hold
    report = report_of(images, labels, splits)
    counts = np.bincount(labels[:60], minlength=7)
    conflicts = [group for group in ([4, 11], [20, 85], [5, 61, 81], [64, 65]) if len(set(labels[group])) > 1]
    assert (report.images, report.blanks) == (100, 2)
    assert (report.redundant_copies, report.unique) == (6, 94)  # 10, 11, 85, 61, 81, 65
    assert np.flatnonzero(~open_dataset("planted").clean_val()).tolist() == [1]
    assert report.conflicting_groups == len(conflicts)
    assert report.conflicting_images == sum(map(len, conflicts))
    assert report.exact_copies_in_train == {"val": 1, "test": 2}
    assert report.near_copies_in_train == {"val": 3, "test": 2}
    assert report.train_mean == pytest.approx(images[:60].mean() / 255, abs=1e-12)
    assert report.train_std == pytest.approx(images[:60].std() / 255, abs=1e-12)
    assert list(report.counts["train"].values()) == counts.tolist()
    assert report.majority_share["train"] == counts.max() / 60
    assert report.imbalance == counts.max() / counts.min()
    assert "1 exact (5.0%), 3 with near copies and mirrors (15.0%)" in dict(report.lines()).values()

    without_test = report_of(images[:80], labels[:80], splits[:80])
    assert (without_test.majority_share["test"], without_test.exact_copies_in_train["test"]) == (0.0, 0)
    assert ["test", "none"] in without_test.lines()


@pytest.mark.real_data
def test_real_images_have_the_figures_of_fer2013(fer2013_zip):
    """The published totals are over three splits; without PrivateTest, which some archives lack, there are fewer."""
    info = prepare(fer2013_zip)
    assert info.official_split
    assert list(info.counts["train"].values()) == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert list(info.counts["val"].values()) == [467, 56, 496, 895, 653, 415, 607]
    dataset = open_dataset("fer2013")
    assert int((~dataset.clean_val()).sum()) == 280
    report = audit(dataset)
    assert report.exact_copies_in_train["val"] == 280
    assert report.near_copies_in_train["val"] / 3589 == pytest.approx(0.12, abs=0.005)
    assert (report.train_mean, report.train_std) == pytest.approx((0.5077, 0.2551), abs=5e-5)
    assert report.majority_share["train"] == pytest.approx(0.251, abs=5e-4)
    if info.counts["test"]["happy"] == 0:
        assert (report.images, report.blanks) == (32_298, 12)
        assert (report.redundant_copies, report.conflicting_groups) == (1_532, 47)
    else:
        assert report.images == 35_887 and report.blanks >= 12
        assert (report.redundant_copies, report.unique, report.conflicting_groups) == (1_853, 34_034, 57)
        assert report.exact_copies_in_train["test"] == 288
