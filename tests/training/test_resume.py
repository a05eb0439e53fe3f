"""A trial that is preempted or killed, however often, ends bit for bit as one that never was."""

import contextlib
import itertools
import json

import pytest
import torch

from fer_sweep.data.cache import open_dataset
from fer_sweep.records import StopReason, TrialState
from fer_sweep.training.checkpoint import Checkpoints
from fer_sweep.training.loop import train
from tests.training.conftest import SIZES, small

EPOCHS, EPOCH = 3, 5
"""An epoch asks five times whether to stop: before three steps and within the two halves of its evaluation."""
PREEMPTED, PAUSED = StopReason.PREEMPTED, StopReason.PAUSED
TIMING = {"seconds", "images_per_second", "peak_memory_mb"}


class Killed(BaseException):
    """Stands in for kill -9 in a process that lives on: nothing in training catches it."""


def everything_on(model="simple_cnn"):
    augment = {"shift": 0.1, "rotation": 10.0, "scale": 0.1, "flip": True, "brightness": 0.1, "contrast": 0.1}
    augment |= {"erasing": 0.5, "mixup": 0.4, "cutmix": 0.3, "mix_until": 0.4}
    more = {"deeper_cnn": {"conv_dropout": 0.2}, "vit": {"stochastic_depth": 0.3}}.get(model, {})
    more["optimizer"] = "sgd" if model in ("deeper_cnn", "resnet18") else "adamw"
    shared = {"dropout": 0.2, "ema_decay": 0.9, "label_smoothing": 0.1, "clip_norm": 1.0, "lr": 3e-3, "seed": 6}
    return small(model, epochs=EPOCHS, augment=augment, **shared, **more)


def after(asks, how=PREEMPTED):
    """Stop, or be killed, when asked for the n-th time (from 0) whether to stop."""
    countdown = iter(range(asks, -1, -1))

    def stop():
        if next(countdown) > 0:
            return None
        if how is Killed:
            raise Killed
        return how

    return stop


def interrupted(config, folder, attempts):
    for how, asks in attempts:
        with contextlib.suppress(Killed):
            assert train(config, folder, stop=after(asks, how)).state == how


def what_stays(folder, outcome):
    """All that a trial leaves, without what was measured with a clock."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return {
        "state": outcome.state,
        "history": _plain(rows),
        "result": outcome.result.model_dump(exclude=TIMING),
        "weights": (folder / "best.safetensors").read_bytes(),
    }


@pytest.fixture
def uninterrupted(tmp_path):
    """What a simple_cnn that was never interrupted leaves."""
    return what_stays(tmp_path / "never", train(everything_on(), tmp_path / "never"))


LAST_STEP = (EPOCHS - 1) * EPOCH + 2
SCHEDULES = {
    # At the first step after each epoch, as turns end, and in the middle of the last one.
    "paused": [(PAUSED, EPOCH), (PAUSED, EPOCH), (PAUSED, 2)],
    # Before the first step; inside an epoch; again at once; at the end of an epoch; in the middle of its evaluation;
    # inside the last epoch.
    "preempted": [(PREEMPTED, 0), (PREEMPTED, 2), (PREEMPTED, 0), (PREEMPTED, 1), (PREEMPTED, 1), (PREEMPTED, 9)],
    # Before any checkpoint; in the third epoch; after a preemption; in what is then left, whether the end of the
    # second epoch is in a checkpoint or not.
    "killed": [(Killed, 2), (Killed, 11), (PREEMPTED, 1), (Killed, 1)],
}


@pytest.mark.parametrize("model", SIZES)
def test_interrupted_trial_ends_bit_identical(model, tmp_path, monkeypatch):
    config = everything_on(model)
    # The reference pauses once, before its last step, to show model, optimizer, average and generators there.
    interrupted(config, tmp_path / "whole", [(PREEMPTED, LAST_STEP)])
    whole_state = _state(config, tmp_path / "whole")
    whole = what_stays(tmp_path / "whole", train(config, tmp_path / "whole"))
    assert whole == what_stays(tmp_path / "never", train(config, tmp_path / "never"))
    assert len(whole["history"]) == EPOCHS
    for name, share in itertools.product(SCHEDULES, (0.0, float("inf"))):
        # Only the end of the first epoch is worth a checkpoint, or every one is.
        monkeypatch.setattr("fer_sweep.training.checkpoint.MAX_SHARE", share)
        folder = tmp_path / f"{name}-{share}"
        interrupted(config, folder, SCHEDULES[name])
        if name == "preempted":  # eight steps are done, so it stands where the reference paused
            state = _state(config, folder)
            assert _plain(state.state["history"]) == _plain(whole_state.state["history"])
            assert _plain(state.tensors) == _plain(whole_state.tensors)
        assert what_stays(folder, train(config, folder)) == whole, folder.name


def test_a_paused_trial_has_the_result_so_far_its_weights_and_one_checkpoint(tmp_path):
    config = everything_on()
    assert train(config, tmp_path, stop=after(1, PAUSED)).result is None, "of no epoch"
    outcome = train(config, tmp_path, stop=after(2 * EPOCH + 1, PAUSED))
    assert (outcome.state, outcome.reason) == (TrialState.PAUSED, "paused in epoch 3 of 3")
    weights = (tmp_path / "best.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["last.ckpt"]
    assert not (tmp_path / "result.json").exists()
    pruned = train(config, tmp_path, stop=after(0, StopReason.PRUNED))
    assert pruned.result.model_dump(exclude=TIMING) == outcome.result.model_dump(exclude=TIMING)
    assert (tmp_path / "best.safetensors").read_bytes() == weights


def test_trial_resumes_on_a_host_that_shares_only_the_checkpoints(tmp_path, uninterrupted):
    config, apart = everything_on(), tmp_path / "shared" / "sweep" / "trial"
    here, there = tmp_path / "here", tmp_path / "there"
    assert uninterrupted["result"]["best_epoch"] == 2, "or the last epoch would put everything right"
    train(config, there, checkpoints=tmp_path / "gone", stop=after(EPOCH + 1))  # the best weights of its first epoch
    assert train(config, here, checkpoints=apart, stop=after(2 * EPOCH + 1)).state is TrialState.PREEMPTED
    assert not list(here.glob("*.ckpt"))
    assert {path.name for path in apart.iterdir()} >= {"last.ckpt", "best.safetensors"}
    assert what_stays(there, train(config, there, checkpoints=apart)) == uninterrupted
    assert not (tmp_path / "shared" / "sweep").exists(), "a finished trial leaves no checkpoints"


def test_checkpoint_in_the_trials_folder_is_resumed_by_an_agent_that_saves_elsewhere(tmp_path, uninterrupted):
    config, trial, apart = everything_on(), tmp_path / "trial", tmp_path / "apart"
    train(config, trial, stop=after(EPOCH + 1))
    first_rows = (trial / "history.jsonl").read_text()
    train(config, trial, checkpoints=apart, stop=after(1))
    assert (trial / "history.jsonl").read_text() == first_rows, "what a clock measured is the same"
    assert (apart / "last.ckpt").is_file()
    assert not list(trial.glob("*.ckpt")), "the older one is deleted"
    assert what_stays(trial, train(config, trial, checkpoints=apart)) == uninterrupted


def _state(config, folder):
    return Checkpoints(folder, config, open_dataset("tiny").info.fingerprint).load()


def _plain(value):
    """Tensors as bytes and the rest as it is, so that == compares bit for bit; timing left out."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.shape, value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in TIMING}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
