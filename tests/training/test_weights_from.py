"""A trial that starts from the weights of an earlier one's best epoch."""

import numpy as np
import pytest
import torch

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import Split
from fer_sweep.errors import CheckpointError
from fer_sweep.files import trial_folder
from fer_sweep.records import StopReason
from fer_sweep.training.evaluation import evaluate
from fer_sweep.training.loop import train
from fer_sweep.training.trial import Trial
from tests.training.conftest import other_data, small

PRECISE = {"precision": "fp32", "lr": 1e-2, "hidden": 32, "channels": 8}


@pytest.fixture
def earlier():
    """The result of trial `s/0`, which has learnt something."""
    return train(small(epochs=6, **PRECISE), trial_folder("s", "0")).result


@pytest.mark.parametrize("averaged", [{}, {"ema_decay": 0.9}])
def test_it_starts_with_the_accuracy_of_the_earlier_trial(averaged, earlier, tmp_path):
    assert earlier.best_val_acc > 0.5
    trial = Trial(small(weights_from="s/0", **PRECISE, **averaged), tmp_path, torch.device("cpu"))
    data = open_dataset("tiny")
    for model in (trial.model, trial.evaluated):
        _, predictions = evaluate(model, trial.faces, trial.faces.val, "fp32")
        assert np.mean(predictions == data.labels[data.indices(Split.VAL)]) == earlier.best_val_acc


def test_it_resumes_without_the_weights_that_it_started_from(earlier, tmp_path):
    config, rows = small(epochs=3, weights_from="s/0", **PRECISE), []
    whole = train(config, tmp_path / "whole").result
    train(config, tmp_path / "t", on_epoch=rows.append, stop=lambda: StopReason.PREEMPTED if rows else None)
    (trial_folder("s", "0") / "best.safetensors").unlink()
    assert train(config, tmp_path / "t").result.confusion_matrix == whole.confusion_matrix
    assert (tmp_path / "t" / "best.safetensors").read_bytes() == (tmp_path / "whole/best.safetensors").read_bytes()


def unfinished(tmp_path, monkeypatch):
    (trial_folder("s", "0") / "result.json").unlink()


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (unfinished, {}, "weights_from=s/0: there is no finished trial in .*0"),
        (None, {"weights_from": "gone/3"}, "weights_from=gone/3: there is no finished trial in .*gone"),
        (None, {"channels": 4}, "do not fit this model, they are of model=simple_cnn, channels=8"),
        (None, {"model": "deeper_cnn", "blocks": 1}, "do not fit this model, they are of model=simple_cnn"),
        (other_data, {}, "was trained on other data"),
    ],
)
@pytest.mark.usefixtures("earlier")
def test_weights_that_are_missing_or_do_not_fit_are_refused(change, values, message, tmp_path, monkeypatch):
    if change:
        change(tmp_path, monkeypatch)
    own = {} if "model" in values else PRECISE
    with pytest.raises(CheckpointError, match=message) as caught:
        train(small(**{"weights_from": "s/0", **own, **values}), tmp_path)
    assert caught.value.hint
