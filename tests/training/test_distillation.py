"""A trial that learns from a teacher."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from fer_sweep.data import augment
from fer_sweep.data.cache import open_dataset
from fer_sweep.data.mixing import Mixing
from fer_sweep.errors import CheckpointError
from fer_sweep.files import trial_folder
from fer_sweep.inference import safetensors_weights
from fer_sweep.records import Averaging, StopReason
from fer_sweep.training.checkpoint import Checkpoints
from fer_sweep.training.distillation import distillation_loss
from fer_sweep.training.examination import load_examinee, probabilities
from fer_sweep.training.loop import train
from fer_sweep.training.step import Batch, Steps
from fer_sweep.training.trial import Trial
from tests.training.conftest import other_data, small

CPU = torch.device("cpu")
PRECISE = {"precision": "fp32", "lr": 1e-2}
TAUGHT = {"distill_from": "t/0", **PRECISE}
AUGMENT = {"shift": 0.1, "rotation": 10.0, "scale": 0.1, "flip": True, "erasing": 0.5, "mixup": 0.4}


@pytest.fixture(scope="module")
def trained(tiny_cache, tmp_path_factory):
    """The folder of a DeeperCNN with dropout, trained on half of the samples."""
    folder = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(tiny_cache))
        train(small("deeper_cnn", epochs=3, dropout=0.5, train_samples=35, **PRECISE), folder)
    return folder


@pytest.fixture
def teacher(trained):
    """The same as trial `t/0` of the test's own home."""
    return Path(shutil.copytree(trained, trial_folder("t", "0")))


def begun(folder, **changes):
    trial = Trial(small(**{**TAUGHT, "augment": AUGMENT, **changes}), folder, CPU, micro_batch=7)
    trial.model.train()
    drawn = augment.draw(trial.config.augment, 24, trial.faces.spec, np.random.default_rng(0))
    mixing = Mixing(torch.tensor(0.7), torch.zeros(4, dtype=torch.int64), torch.tensor(0.7))
    return trial, Batch(trial.faces.train[:24], drawn, mixing)


def by_hand(logits, taught, temperature):
    """Image by image in NumPy, float64."""
    student, teacher = logits.double().numpy(), taught.double().numpy()

    def log_softmax(row):
        return row - np.log(np.exp(row).sum())

    if temperature == 0:
        return np.mean([-log_softmax(s)[t.argmax()] for s, t in zip(student, teacher, strict=True)])
    pairs = [
        (log_softmax(s / temperature), log_softmax(t / temperature)) for s, t in zip(student, teacher, strict=True)
    ]
    return np.mean([temperature**2 * (np.exp(t) * (t - s)).sum() for s, t in pairs])


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 4.0])
def test_the_loss_is_what_a_hand_computation_gives_and_zero_where_both_agree(temperature):
    logits, taught = 3 * torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    loss = distillation_loss(logits, taught, temperature)
    assert float(loss) == pytest.approx(by_hand(logits, taught, temperature), rel=1e-5)
    certain = 100.0 * functional.one_hot(torch.arange(5), 7)
    assert float(distillation_loss(certain, certain, temperature)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.usefixtures("teacher")
def test_a_step_weighs_labels_and_teacher_on_the_same_augmented_and_mixed_images(weight, temperature, tmp_path):
    changes = {"distill_weight": weight, "distill_temperature": temperature, "label_smoothing": 0.1}
    trial, batch = begun(tmp_path, **changes)
    images = batch.mixing.apply(batch.augmentation.apply(trial.faces.batch(batch.positions)))
    logits, labels = trial.model(images).detach(), trial.faces.labels[batch.positions]
    own, partner = (functional.cross_entropy(logits, of, label_smoothing=0.1) for of in (labels, labels.flip(0)))
    of_labels = float(0.7 * own + 0.3 * partner)
    of_teacher = by_hand(logits, trial.teacher.logits(images, "fp32"), temperature)
    Steps(trial).take(batch, 0.0)
    assert float(trial.progress.loss_sum) / 24 == pytest.approx(
        (1 - weight) * of_labels + weight * of_teacher, rel=1e-5
    )


def test_gradients_reach_the_student_alone(teacher, tmp_path):
    trial, batch = begun(tmp_path, distill_weight=1.0)
    assert trial.result().parameters == Trial(small(**PRECISE), tmp_path / "alone", CPU).result().parameters
    images = trial.faces.batch(batch.positions)
    before, student = trial.teacher.logits(images, "fp32"), trial.model(images)
    Steps(trial).take(batch, 0.1)
    assert not trial.teacher.logits(images, "fp32").requires_grad
    assert torch.equal(trial.teacher.logits(images, "fp32"), before)
    assert not torch.equal(trial.model(images), student)


@pytest.mark.parametrize("kind", ["trial", "folder", "export"])
def test_the_teacher_sees_images_as_in_its_own_training(kind, teacher, tmp_path):
    examinee, data = load_examinee(teacher, CPU), open_dataset("tiny")
    (export := tmp_path / "export").mkdir()
    safetensors_weights.write(examinee, export)
    named = {"trial": "t/0", "folder": str(teacher), "export": str(export)}[kind]
    trial = Trial(small(**{**TAUGHT, "distill_from": named}), tmp_path / "student", CPU)
    assert trial.faces.mean != examinee.pixel_mean, "or nothing is tested"
    shown = trial.faces.batch(trial.faces.val)
    seen = trial.teacher.logits(shown, "fp32").softmax(dim=1).numpy()
    positions = trial.faces.val.numpy()
    np.testing.assert_allclose(seen, probabilities(examinee, data.images, positions, Averaging.NONE), atol=1e-5)


@pytest.mark.usefixtures("teacher")
def test_a_student_begins_as_it_would_alone_and_at_weight_0_ends_so(tmp_path):
    train(small(**PRECISE, epochs=2, dropout=0.2), tmp_path / "alone")
    train(small(**TAUGHT, epochs=2, dropout=0.2, distill_weight=0.0), tmp_path / "taught")
    alone, taught = (load_examinee(tmp_path / name, CPU).model.state_dict() for name in ("alone", "taught"))
    assert all(torch.equal(alone[name], taught[name]) for name in alone)


def test_it_resumes_bit_for_bit_with_its_teacher_loaded_again(teacher, tmp_path):
    train(small(**PRECISE), trial_folder("s", "0"))
    config = small(**TAUGHT, weights_from="s/0", epochs=3, dropout=0.2, ema_decay=0.9, augment=AUGMENT)
    whole, rows = train(config, tmp_path / "whole").result, []

    def begin():
        rows.clear()
        train(config, tmp_path / "t", on_epoch=rows.append, stop=lambda: StopReason.PREEMPTED if rows else None)

    begin()
    assert not any("block" in name for name in _checkpoint(config, tmp_path / "t").tensors), "the teacher's"
    (teacher / "result.json").rename(tmp_path / "result.json")
    with pytest.raises(CheckpointError, match="distill_from=t/0: there is no finished trial"):
        train(config, tmp_path / "t")
    (tmp_path / "result.json").rename(teacher / "result.json")
    assert train(config, tmp_path / "t").result.confusion_matrix == whole.confusion_matrix
    assert (tmp_path / "t" / "best.safetensors").read_bytes() == (tmp_path / "whole/best.safetensors").read_bytes()


def _checkpoint(config, folder):
    return Checkpoints(folder, config, open_dataset("tiny").info.fingerprint).load()


def unfinished(tmp_path, monkeypatch):
    (trial_folder("t", "0") / "result.json").unlink()


@pytest.mark.parametrize(
    ("change", "named", "message"),
    [
        (unfinished, "t/0", "distill_from=t/0: there is no finished trial in .*0"),
        (None, "gone/3", "distill_from=gone/3: there is no finished trial in .*gone"),
        (None, "/gone", "distill_from=/gone: there is no finished trial or exported model in /gone"),
        (other_data, "t/0", "distill_from=t/0: that trial was trained on other data"),
    ],
)
@pytest.mark.usefixtures("teacher")
def test_a_teacher_that_is_missing_or_was_trained_on_other_data_is_refused(
    change, named, message, tmp_path, monkeypatch
):
    if change:
        change(tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match=message) as caught:
        train(small(**{**TAUGHT, "distill_from": named}), tmp_path / "student")
    assert caught.value.hint
