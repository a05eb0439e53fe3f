"""What the tests of training share: a small data set, prepared once, and small networks to train on it."""

import pytest

from fer_sweep.config.trial import parse_trial
from tests.support.faces import Faces

SIZES = {
    "simple_cnn": {"channels": 4, "hidden": 16},
    "deeper_cnn": {"blocks": 2, "convs_per_block": 1, "width": 4},
    "resnet18": {"stem": "imagenet", "width": 8},
    "vit": {"patch_size": 16, "dim": 16, "depth": 2, "head_dim": 8},
}


def small(model="simple_cnn", **changes):
    """A configuration that trains on `tiny` in milliseconds, three steps an epoch."""
    return parse_trial({"model": model, "data": "tiny", "batch_size": 24, **SIZES[model], **changes})


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory):
    """A cache with the data set `tiny`: 70 training, 21 validation (7 are copies) and 7 test images."""
    return Faces.barred([70, 21, 7], copies_at=70).prepared(tmp_path_factory.mktemp("tiny"), "tiny")


@pytest.fixture(autouse=True)
def tiny_data(own_folders, tiny_cache, monkeypatch):
    """Every test here finds `tiny` prepared."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))


def other_data(tmp_path, monkeypatch):
    """From now on `tiny` is another data set."""
    (folder := tmp_path / "other").mkdir()
    monkeypatch.setenv("FERSWEEP_CACHE", str(Faces.barred([80, 21, 7], copies_at=80).prepared(folder, "tiny")))
