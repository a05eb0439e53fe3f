"""Trained models of every architecture, small enough to be trained in a second."""

from pathlib import Path

import pytest

from fer_sweep.config.trial import parse_trial
from fer_sweep.training.loop import train

SIZES = {
    "simple_cnn": {"channels": 4, "hidden": 16},
    "deeper_cnn": {"width": 4},
    "resnet18": {"width": 8},
    "vit": {"dim": 32, "depth": 2, "patch_size": 16, "stochastic_depth": 0.1},
}


@pytest.fixture(scope="session")
def all_trained(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Path:
    """A folder with a trained trial of each model, by its name, on `tiny`."""
    folder = tmp_path_factory.mktemp("trained")
    shared = {"data": "tiny", "epochs": 1, "train_samples": 32, "batch_size": 16, "lr": 3e-3, "precision": "fp32"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(tiny_cache))
        for model, sizes in SIZES.items():
            train(parse_trial({"model": model, **shared, **sizes}), folder / model)
    return folder


@pytest.fixture
def trained(all_trained: Path, tiny_data: str) -> Path:
    """The same; its data can be opened."""
    return all_trained
