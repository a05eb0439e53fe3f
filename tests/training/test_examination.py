"""A trained model before the test split: loaded, checked on the validation images first, and averaged over views."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fer_sweep.config.trial import SimpleCNNConfig, parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import Split, fingerprint_of_test, positions_of_test
from fer_sweep.errors import CheckpointError, DataError
from fer_sweep.records import Averaging
from fer_sweep.training.examination import examine, load_examinee, predict, views
from fer_sweep.training.loop import train

CPU = torch.device("cpu")
CONFIG = SimpleCNNConfig(data="tiny", epochs=2, channels=4, hidden=16, batch_size=16, lr=5e-3)


@pytest.fixture(scope="module")
def trained_once(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "trial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(tiny_cache))
        train(CONFIG, folder)
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_once, tmp_path / "trial"))


def test_loaded_model_has_the_accuracy_that_training_measured(trained: Path) -> None:
    examinee, data = load_examinee(trained, CPU), open_dataset("tiny")
    positions = data.indices(Split.VAL)
    predictions = predict(examinee, data.images, positions, Averaging.NONE)
    result = json.loads((trained / "result.json").read_text())
    assert np.mean(predictions == data.labels[positions]) == result["best_val_acc"] == examinee.val_acc


@pytest.mark.parametrize("averaging", list(Averaging))
def test_every_test_image_is_counted(trained: Path, averaging: Averaging) -> None:
    data = open_dataset("tiny")
    found = examine(load_examinee(trained, CPU), data, averaging, data)
    assert found.images == sum(map(sum, found.confusion_matrix)) == 7
    assert found.right == sum(found.confusion_matrix[k][k] for k in range(7))
    assert found.clean_images == 7  # the copies among the images of `tiny` are in its validation split
    assert found.averaging is averaging


@pytest.mark.parametrize(
    "sizes",
    [
        {"model": "deeper_cnn", "width": 4},
        {"model": "resnet18", "width": 8, "stem": "imagenet"},
        {"model": "vit", "dim": 32, "depth": 1, "patch_size": 16},
    ],
    ids=lambda sizes: str(sizes["model"]),
)
def test_every_architecture_is_loaded_with_averaged_weights(tmp_path: Path, sizes: dict[str, object]) -> None:
    train(parse_trial({"data": "tiny", "epochs": 1, "batch_size": 32, "ema_decay": 0.5, **sizes}), tmp_path)
    data = open_dataset("tiny")
    assert examine(load_examinee(tmp_path, CPU), data, Averaging.FLIP, data).images == 7


def test_views_are_mirrored_and_cropped() -> None:
    batch = torch.arange(2.0 * 48 * 48).reshape(2, 1, 48, 48)
    assert [view.equal(batch) for view in views(batch, Averaging.NONE)] == [True]
    plain, mirrored = views(batch, Averaging.FLIP)
    assert plain.equal(batch) and mirrored.flip(-1).equal(batch)
    crops = list(views(batch, Averaging.TENCROP))
    assert len(crops) == 10
    assert all(crop.shape == batch.shape for crop in crops)
    assert all(mirror.flip(-1).equal(crop) for crop, mirror in zip(crops[::2], crops[1::2], strict=True))
    # The corners of the crops, at whose outermost pixels scaling changes nothing.
    assert crops[0][0, 0, 0, 0] == batch[0, 0, 0, 0]
    assert crops[2][0, 0, 0, -1] == batch[0, 0, 0, -1]
    assert crops[4][0, 0, -1, 0] == batch[0, 0, -1, 0]
    assert crops[6][0, 0, -1, -1] == batch[0, 0, -1, -1]
    assert crops[8][0, 0, 0, 0] == batch[0, 0, 2, 2]


def test_weights_of_another_training_never_see_the_test_split(trained: Path) -> None:
    with torch.no_grad():
        weights = {name: torch.zeros_like(tensor) for name, tensor in load_file(trained / "best.safetensors").items()}
    _exchange(trained, weights)
    data = open_dataset("tiny")
    with pytest.raises(CheckpointError, match="not those of the training"):
        examine(load_examinee(trained, CPU), data, Averaging.NONE, data)


def test_folder_without_a_usable_model_is_refused(trained: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            load_examinee(trained, CPU)

    config, weights = trained / "config.json", trained / "best.safetensors"
    good = config.read_text()
    config.write_text(CONFIG.model_copy(update={"lr": 0.1}).model_dump_json())
    refused("another configuration")
    config.unlink()
    refused("no model can be loaded")
    config.write_text(good)
    _exchange(trained, {"fc.weight": torch.zeros(7, 7)})
    refused("does not fit")
    weights.write_bytes(weights.read_bytes()[:100])
    refused("no model can be loaded")
    weights.unlink()
    refused("no model can be loaded")


def test_data_set_without_a_test_split_is_refused() -> None:
    data = open_dataset("tiny")
    assert len(positions_of_test(data)) == 7
    with pytest.raises(DataError, match="no test images"):
        positions_of_test(replace(data, splits=np.minimum(data.splits, 1)))


def test_fingerprint_of_the_test_split_ignores_order_and_other_splits() -> None:
    data = open_dataset("tiny")
    found = fingerprint_of_test(data)
    backwards = replace(data, images=data.images[::-1], labels=data.labels[::-1], splits=data.splits[::-1])
    assert fingerprint_of_test(backwards) == found
    fewer = replace(data, splits=np.where(np.arange(len(data.splits)) < 20, 1, data.splits).astype(np.uint8))
    assert fingerprint_of_test(fewer) == found
    assert fingerprint_of_test(replace(data, labels=(data.labels + 1) % 7)) != found


def _exchange(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    path = folder / "best.safetensors"
    with safe_open(path, framework="pt") as stored:
        about = stored.metadata()
    path.unlink()  # what is mapped into memory must not change below
    save_file(weights, path, metadata=about)
