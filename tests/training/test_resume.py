"""A trial that is preempted or killed, however often, ends bit for bit as one that never was."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.training.checkpoint import Checkpoints
from fer_sweep.training.loop import train

SIZES: dict[str, dict[str, Any]] = {
    "simple_cnn": {"channels": 4, "hidden": 16},
    "deeper_cnn": {"blocks": 2, "convs_per_block": 1, "width": 4, "conv_dropout": 0.2, "optimizer": "sgd"},
    "resnet18": {"stem": "imagenet", "width": 8, "optimizer": "sgd"},
    "vit": {"patch_size": 16, "dim": 16, "depth": 2, "head_dim": 8, "stochastic_depth": 0.3},
}
STEPS = 3
"""Of an epoch: 70 images in batches of 24."""
EVALUATIONS = 2
"""Batches of an epoch's evaluation: the validation images, and as many training images."""
EPOCH = STEPS + EVALUATIONS
EPOCHS = 3
PREEMPTED = StopReason.PREEMPTED


class Killed(BaseException):
    """Stands in for kill -9 in a process that lives on: nothing in training catches it."""


def everything_on(model: str) -> TrialConfig:
    augment = {"shift": 0.1, "rotation": 10.0, "scale": 0.1, "flip": True, "erasing": 0.5, "mixup": 0.4}
    shared = {"dropout": 0.2, "ema_decay": 0.9, "label_smoothing": 0.1, "clip_norm": 1.0, "lr": 3e-3, "seed": 3}
    values = {"model": model, "data": "tiny", "epochs": EPOCHS, "batch_size": 24, "augment": augment}
    return parse_trial({**values, **shared, **SIZES[model]})


def after(asks: int, how: StopReason | type[Killed] = PREEMPTED) -> Callable[[], StopReason | None]:
    """Stop, or be killed, when asked for the n-th time (from 0) whether to stop."""
    countdown: Iterator[int] = iter(range(asks, -1, -1))

    def stop() -> StopReason | None:
        if next(countdown) > 0:
            return None
        if isinstance(how, StopReason):
            return how
        raise how

    return stop


def interrupted(config: TrialConfig, folder: Path, attempts: Sequence[tuple[StopReason | type[Killed], int]]) -> None:
    for how, asks in attempts:
        if how is Killed:
            with pytest.raises(Killed):
                train(config, folder, stop=after(asks, how))
        else:
            assert train(config, folder, stop=after(asks, how)).state is TrialState.PREEMPTED


def what_stays(folder: Path, outcome: TrialOutcome) -> dict[str, Any]:
    """All that a trial leaves, without what was measured with a clock."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert outcome.result is not None
    timing = {"seconds", "images_per_second", "peak_memory_mb"}
    return {
        "state": outcome.state,
        "history": [{key: value for key, value in row.items() if key not in timing} for row in rows],
        "result": outcome.result.model_dump(exclude=timing),
        "weights": (folder / "best.safetensors").read_bytes(),
    }


@pytest.fixture(scope="module")
def uninterrupted(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a simple_cnn that was never interrupted leaves."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERSWEEP_CACHE", str(tiny_cache))
        return what_stays(folder, train(everything_on("simple_cnn"), folder))


LAST_STEP = (EPOCHS - 1) * EPOCH + STEPS - 1
SCHEDULES = {
    # Before the first step; inside an epoch; again at once; at the end of an epoch; in the middle of its evaluation;
    # inside the last epoch.
    "preempted": [(PREEMPTED, 0), (PREEMPTED, 2), (PREEMPTED, 0), (PREEMPTED, 1), (PREEMPTED, 1), (PREEMPTED, 9)],
    # Before any checkpoint; in the third epoch; after a preemption; in what is then left, whether the end of the
    # second epoch is in a checkpoint or not.
    "killed": [(Killed, 2), (Killed, 11), (PREEMPTED, 1), (Killed, 1)],
}


@pytest.mark.parametrize("model", SIZES)
def test_interrupted_trial_ends_bit_identical(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
            for part in ("model", "average", "optimizer", "rng", "history"):
                assert _plain(state[part]) == _plain(whole_state[part]), part
        assert what_stays(folder, train(config, folder)) == whole, folder.name


def test_trial_killed_by_the_system_resumes_to_the_same_bits(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    config = everything_on("simple_cnn")
    script = Path(__file__).with_name("killed_training.py")
    command = [sys.executable, str(script), config.model_dump_json(), str(tmp_path / "t")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert what_stays(tmp_path / "t", train(config, tmp_path / "t")) == uninterrupted


def test_trial_resumes_on_a_host_that_shares_only_the_checkpoints(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    config, apart = everything_on("simple_cnn"), tmp_path / "shared" / "sweep" / "trial"
    stopped = train(config, tmp_path / "here", checkpoints=apart, stop=after(EPOCH + 1))
    assert stopped.state is TrialState.PREEMPTED
    assert not list((tmp_path / "here").glob("*.ckpt"))
    assert {path.name for path in apart.iterdir()} >= {"last.ckpt", "best.safetensors"}
    assert what_stays(tmp_path / "there", train(config, tmp_path / "there", checkpoints=apart)) == uninterrupted
    assert not (tmp_path / "shared" / "sweep").exists(), "a finished trial leaves no checkpoints"


def test_best_weights_are_those_of_the_checkpoint_resumed_from(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    config = everything_on("simple_cnn")
    trial, here, there = tmp_path / "trial", tmp_path / "here", tmp_path / "there"
    assert uninterrupted["result"]["best_epoch"] == 2, "or the last epoch would put everything right"
    train(config, trial, checkpoints=here, stop=after(2 * EPOCH + 1))
    train(config, trial, checkpoints=there, stop=after(EPOCH + 1))  # anew: the folder's best is now the first epoch's
    assert what_stays(trial, train(config, trial, checkpoints=here)) == uninterrupted


def test_checkpoint_in_the_trials_folder_is_resumed_by_an_agent_that_saves_elsewhere(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    config, trial, apart = everything_on("simple_cnn"), tmp_path / "trial", tmp_path / "apart"
    train(config, trial, stop=after(EPOCH + 1))
    first_rows = (trial / "history.jsonl").read_text()
    train(config, trial, checkpoints=apart, stop=after(1))
    assert (trial / "history.jsonl").read_text() == first_rows, "what a clock measured is the same"
    assert (apart / "last.ckpt").is_file()
    assert not list(trial.glob("*.ckpt")), "the older one is deleted"
    assert what_stays(trial, train(config, trial, checkpoints=apart)) == uninterrupted


def test_another_seed_gives_another_training(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    other = everything_on("simple_cnn").model_copy(update={"seed": 4})
    assert what_stays(tmp_path, train(other, tmp_path))["history"] != uninterrupted["history"]


def _state(config: TrialConfig, folder: Path) -> dict[str, Any]:
    state = Checkpoints(folder, config, open_dataset("tiny").info.fingerprint).load()
    assert state is not None
    return state


def _plain(value: Any) -> Any:
    """Tensors as bytes and the rest as it is, so that == compares bit for bit; timing left out."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.shape, value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "images_per_second"}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
