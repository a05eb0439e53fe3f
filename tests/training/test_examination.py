"""A trained model before the test split: loaded as it was trained, checked first, and shown the views it should be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fer_sweep.config.trial import SimpleCNNConfig, parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import Split, fingerprint_of_test, positions_of_test
from fer_sweep.errors import CheckpointError, DataError
from fer_sweep.records import Averaging
from fer_sweep.training.examination import (
    examine,
    load_examinee,
    open_if_here,
    predict,
    views,
)
from fer_sweep.training.loop import train

CPU = torch.device("cpu")
CONFIG = SimpleCNNConfig(data="tiny", epochs=4, channels=4, hidden=16, batch_size=16, lr=5e-3)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    train(CONFIG, tmp_path / "trial")
    return tmp_path / "trial"


def test_a_loaded_model_predicts_what_the_training_measured(trained: Path) -> None:
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
    assert found.val_acc is not None


@pytest.mark.parametrize("model", ["deeper_cnn", "resnet18", "vit"])
def test_every_architecture_is_loaded(tmp_path: Path, model: str) -> None:
    sizes = {
        "deeper_cnn": {"width": 4},
        "resnet18": {"width": 8, "stem": "imagenet"},
        "vit": {"dim": 32, "depth": 1, "patch_size": 16},
    }
    config = parse_trial({"model": model, "data": "tiny", "epochs": 1, "batch_size": 32, **sizes[model]})
    train(config.model_copy(update={"ema_decay": 0.5}), tmp_path)
    data = open_dataset("tiny")
    assert examine(load_examinee(tmp_path, CPU), data, Averaging.FLIP, data).images == 7


def test_views() -> None:
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


def test_weights_that_are_not_those_of_the_training_never_see_the_test(trained: Path) -> None:
    with torch.no_grad():
        weights = {name: torch.zeros_like(tensor) for name, tensor in load_file(trained / "best.safetensors").items()}
    _exchange(trained, weights)
    data = open_dataset("tiny")
    with pytest.raises(CheckpointError, match="not those of the training"):
        examine(load_examinee(trained, CPU), data, Averaging.NONE, data)


def test_weights_of_another_shape_are_refused(trained: Path) -> None:
    _exchange(trained, {"fc.weight": torch.zeros(7, 7)})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_examinee(trained, CPU)


@pytest.mark.parametrize("missing", ["best.safetensors", "config.json"])
def test_a_folder_without_a_model_is_refused(trained: Path, missing: str) -> None:
    (trained / missing).unlink()
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        load_examinee(trained, CPU)


def test_a_damaged_model_is_refused(trained: Path) -> None:
    path = trained / "best.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        load_examinee(trained, CPU)


def test_a_configuration_that_was_exchanged_is_refused(trained: Path) -> None:
    (trained / "config.json").write_text(CONFIG.model_copy(update={"lr": 0.1}).model_dump_json())
    with pytest.raises(CheckpointError, match="another configuration"):
        load_examinee(trained, CPU)


def test_synthetic_faces_have_a_test_split_or_say_so() -> None:
    data = open_dataset("synthetic")
    if data.info.split_total(Split.TEST):
        assert len(positions_of_test(data))
    else:
        with pytest.raises(DataError, match="no test images"):
            positions_of_test(data)


def test_the_fingerprint_is_of_the_test_images_and_labels_in_any_order() -> None:
    from dataclasses import replace

    data = open_dataset("tiny")
    found = fingerprint_of_test(data)
    backwards = replace(data, images=data.images[::-1], labels=data.labels[::-1], splits=data.splits[::-1])
    assert fingerprint_of_test(backwards) == found
    fewer = replace(data, splits=np.where(np.arange(len(data.splits)) < 20, 1, data.splits).astype(np.uint8))
    assert fingerprint_of_test(fewer) == found
    assert fingerprint_of_test(replace(data, labels=(data.labels + 1) % 7)) != found


def test_a_data_set_that_is_not_here_is_none() -> None:
    assert open_if_here("nowhere") is None
    assert open_if_here("tiny") is not None


def _exchange(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    from safetensors import safe_open

    path = folder / "best.safetensors"
    with safe_open(path, framework="pt") as stored:
        about = stored.metadata()
    path.unlink()  # what is mapped into memory must not change below
    save_file(weights, path, metadata=about)
