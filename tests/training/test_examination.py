"""A trained model before the test split: loaded, checked on the validation images first, and averaged over views."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import Split, fingerprint_of_test, positions_of_test
from fer_sweep.errors import CheckpointError, DataError
from fer_sweep.records import Averaging
from fer_sweep.training.examination import examine, load_examinee, predict, views
from fer_sweep.training.loop import train
from tests.training.conftest import small

CPU = torch.device("cpu")
CONFIG = small(epochs=2, lr=5e-3, ema_decay=0.5)


@pytest.fixture
def trained(tmp_path):
    train(CONFIG, tmp_path / "trial")
    return tmp_path / "trial"


@pytest.mark.parametrize("averaging", list(Averaging))
def test_loaded_model_has_the_accuracy_of_its_training_and_every_test_image_is_counted(trained, averaging):
    examinee, data = load_examinee(trained, CPU), open_dataset("tiny")
    positions = data.indices(Split.VAL)
    predictions = predict(examinee, data.images, positions, Averaging.NONE)
    result = json.loads((trained / "result.json").read_text())
    assert np.mean(predictions == data.labels[positions]) == result["best_val_acc"] == examinee.val_acc
    found = examine(examinee, data, averaging, data)
    assert found.images == sum(map(sum, found.confusion_matrix)) == 7
    assert found.right == sum(found.confusion_matrix[k][k] for k in range(7))
    assert found.clean_images == 7  # the copies among the images of `tiny` are in its validation split
    assert found.averaging is averaging


def test_views_are_mirrored_and_cropped():
    batch = torch.arange(2.0 * 48 * 48).reshape(2, 1, 48, 48)
    assert [view.equal(batch) for view in views(batch, Averaging.NONE)] == [True]
    plain, mirrored = views(batch, Averaging.FLIP)
    assert plain.equal(batch) and mirrored.flip(-1).equal(batch)
    crops = list(views(batch, Averaging.TENCROP))
    assert len(crops) == 10
    assert all(mirror.flip(-1).equal(crop) for crop, mirror in zip(crops[::2], crops[1::2], strict=True))
    # The corners of the crops, at whose outermost pixels scaling changes nothing.
    for crop, (row, column) in zip(crops[:8:2], [(0, 0), (0, -1), (-1, 0), (-1, -1)], strict=True):
        assert crop.shape == batch.shape
        assert crop[0, 0, row, column] == batch[0, 0, row, column]
    assert crops[8][0, 0, 0, 0] == batch[0, 0, 2, 2]


def test_weights_of_another_training_never_see_the_test_split(trained):
    weights = load_file(trained / "best.safetensors")
    _exchange(trained, {name: torch.zeros_like(tensor) for name, tensor in weights.items()})
    data = open_dataset("tiny")
    with pytest.raises(CheckpointError, match="not those of the training"):
        examine(load_examinee(trained, CPU), data, Averaging.NONE, data)


def test_folder_without_a_usable_model_is_refused(trained):
    def refused(message):
        with pytest.raises(CheckpointError, match=message):
            load_examinee(trained, CPU)

    weights = trained / "best.safetensors"
    _exchange(trained, {"fc.weight": torch.zeros(7, 7)})
    refused("does not fit")
    weights.write_bytes(weights.read_bytes()[:100])
    refused("cannot load a model")


def test_test_split_has_a_fingerprint_of_its_own_whatever_the_order():
    data = open_dataset("tiny")
    found = fingerprint_of_test(data)
    backwards = replace(data, images=data.images[::-1], labels=data.labels[::-1], splits=data.splits[::-1])
    assert fingerprint_of_test(backwards) == found
    fewer = replace(data, splits=np.where(np.arange(len(data.splits)) < 20, 1, data.splits).astype(np.uint8))
    assert fingerprint_of_test(fewer) == found
    assert fingerprint_of_test(replace(data, labels=(data.labels + 1) % 7)) != found
    with pytest.raises(DataError, match="no test images"):
        positions_of_test(replace(data, splits=np.minimum(data.splits, 1)))


def _exchange(folder, weights):
    path = folder / "best.safetensors"
    with safe_open(path, framework="pt") as stored:
        about = stored.metadata()
    path.unlink()  # what is mapped into memory must not change below
    save_file(weights, path, metadata=about)
