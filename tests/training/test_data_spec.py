"""Classes, channels and size come from the data set: a set of three classes in colour trains as FER2013 does."""

import numpy as np
import pytest
import torch
from PIL import Image

from fer_sweep.data import store
from fer_sweep.data.audit import audit
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import DatasetInfo, FaceDataset, RawFaces
from fer_sweep.errors import InputError
from fer_sweep.inference.export import export_model
from fer_sweep.inference.predict import predict_images
from fer_sweep.records import FER2013, Averaging, DataSpec, ExportFormat, StopReason, TrialState
from fer_sweep.training.examination import examine, load_examinee
from fer_sweep.training.loop import train
from tests.training.conftest import SIZES, small

SPEC = DataSpec(classes=("cat", "dog", "bird"), channels=3, height=32, width=40)


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """The prepared data set `colours`: noise with one brighter channel, whose number is the label."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tmp_path / "cache"))
    labels, splits = np.arange(60) % 3, np.repeat(np.arange(3), [30, 15, 15]).astype(np.uint8)
    images = np.random.default_rng(0).integers(0, 120, (60, *SPEC.shape)).astype(np.uint8)
    images[np.arange(60), labels] += 100
    faces = RawFaces("x", images, labels, splits, spec=SPEC)
    store.save(FaceDataset.of("colours", "x", faces), replace=False)


@pytest.mark.usefixtures("colours")
@pytest.mark.parametrize("model", SIZES)
def test_every_architecture_is_trained_resumed_and_tested_on_data_of_another_shape(model, tmp_path):
    augment = {"shift": 0.1, "rotation": 10.0, "erasing": 0.5}
    size = {"patch_size": 8} if model == "vit" else {}
    config, epochs = small(model, data="colours", epochs=2, augment=augment, **size), []
    folder = tmp_path / "trial"
    stopped = train(config, folder, on_epoch=epochs.append, stop=lambda: StopReason.PREEMPTED if epochs else None)
    assert stopped.state is TrialState.PREEMPTED
    result = train(config, folder).result
    assert len(result.per_class_recall) == 3
    assert np.sum(result.confusion_matrix) == 15
    dataset, examinee = open_dataset("colours"), load_examinee(folder, torch.device("cpu"))
    assert examinee.spec == SPEC
    assert examine(examinee, dataset, Averaging.TENCROP, dataset).images == 15
    Image.new("RGB", SPEC.shape[1:]).save(tmp_path / "face.png")
    with pytest.raises(InputError, match="takes 40x32 images with 3 channels"):
        predict_images(folder, [tmp_path / "face.png"], device="cpu")
    with pytest.raises(InputError, match="takes 3 channels"):
        export_model(folder, tmp_path / "out", ExportFormat.SAFETENSORS, name="a/0")


@pytest.mark.usefixtures("colours")
def test_data_says_what_it_is_in_its_description_and_audit():
    info = open_dataset("colours").info
    assert info.counts["train"] == {"cat": 10, "dog": 10, "bird": 10}
    assert audit(open_dataset("colours")).blanks == 0
    earlier = {name: value for name, value in info.model_dump().items() if name != "spec"}
    earlier["counts"] = {split: dict.fromkeys(FER2013.classes, 10) for split in info.counts}
    assert DatasetInfo.model_validate(earlier).spec == FER2013, "what an earlier release prepared"
