"""A trial that is preempted or killed, however often, ends bit for bit as one that never was."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fer_sweep.config.trial import TrialConfig, parse_trial
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
"""An epoch: 70 images in batches of 24."""
EVALUATIONS = 2
"""Batches of the epoch's evaluation: the validation images, and as many training images."""
EPOCHS = 3


class Killed(BaseException):
    """Stands in for kill -9 where the process must live on: nothing in training catches it."""


def everything_on(model: str) -> TrialConfig:
    augment = {"shift": 0.1, "rotation": 10.0, "scale": 0.1, "flip": True, "erasing": 0.5, "mixup": 0.4}
    shared = {"dropout": 0.2, "ema_decay": 0.9, "label_smoothing": 0.1, "clip_norm": 1.0, "lr": 3e-3, "seed": 3}
    values = {"model": model, "data": "tiny", "epochs": EPOCHS, "batch_size": 24, "augment": augment}
    return parse_trial({**values, **shared, **SIZES[model]})


def interrupted(config: TrialConfig, folder: Path, attempts: Sequence[tuple[StopReason | type[Killed], int]]) -> None:
    """Train in attempts, each ended when it asks for the n-th time (from 0) whether to stop."""
    for how, asks in attempts:
        countdown: Iterator[int] = iter(range(asks, -1, -1))

        def stop(how: Any = how, countdown: Iterator[int] = countdown) -> StopReason | None:
            if next(countdown) > 0:
                return None
            if how is Killed:
                raise Killed
            return StopReason(how)

        if how is Killed:
            with pytest.raises(Killed):
                train(config, folder, stop=stop)
        else:
            assert train(config, folder, stop=stop).state is TrialState.PREEMPTED


def what_stays(folder: Path, outcome: TrialOutcome) -> dict[str, Any]:
    """All that a trial leaves, but for what was measured with a clock."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert outcome.result is not None
    timing = {"seconds", "images_per_second", "peak_memory_mb"}
    return {
        "state": outcome.state,
        "history": [{key: value for key, value in row.items() if key not in timing} for row in rows],
        "result": outcome.result.model_dump(exclude=timing),
        "weights": (folder / "best.safetensors").read_bytes(),
    }


PREEMPTED = StopReason.PREEMPTED
LAST_STEP = (EPOCHS - 1) * (STEPS + EVALUATIONS) + STEPS - 1
SCHEDULES = {
    # Before the first step; inside an epoch; again at once; at the end of an epoch; in the middle of its evaluation;
    # inside the last epoch.
    "preempted": [(PREEMPTED, 0), (PREEMPTED, 2), (PREEMPTED, 0), (PREEMPTED, 1), (PREEMPTED, 1), (PREEMPTED, 9)],
    # Before any checkpoint; in the third epoch; after a preemption; in what is then left, whether the end of the
    # second epoch is in a checkpoint or not.
    "killed": [(Killed, 2), (Killed, 11), (PREEMPTED, 1), (Killed, 1)],
}


@pytest.mark.parametrize("model", SIZES)
def test_an_interrupted_trial_ends_bit_identical(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = everything_on(model)
    # The reference pauses once, before its last step, to show model, optimizer, average and generators there.
    interrupted(config, tmp_path / "whole", [(PREEMPTED, LAST_STEP)])
    whole_state = Checkpoints(tmp_path / "whole", config, _fingerprint(tmp_path / "whole")).load()
    whole = what_stays(tmp_path / "whole", train(config, tmp_path / "whole"))
    assert whole == what_stays(tmp_path / "never", train(config, tmp_path / "never"))
    assert len(whole["history"]) == EPOCHS
    for name, share in itertools.product(SCHEDULES, ("0.0", "inf")):
        # No epoch's end but the first is worth a checkpoint, or every one is.
        monkeypatch.setattr("fer_sweep.training.checkpoint.MAX_SHARE", float(share))
        folder, attempts = tmp_path / (name + share), SCHEDULES[name]
        interrupted(config, folder, attempts)
        if name == "preempted":  # eight steps are done, so it stands where the reference paused
            state = Checkpoints(folder, config, _fingerprint(folder)).load()
            assert state is not None
            assert whole_state is not None
            for part in ("model", "average", "optimizer", "rng", "history"):
                assert _plain(state[part]) == _plain(whole_state[part]), part
        assert what_stays(folder, train(config, folder)) == whole, name


def test_checkpoints_in_a_folder_of_their_own_are_gone_on_with_on_a_host_that_sees_only_these(tmp_path: Path) -> None:
    config = everything_on("simple_cnn")
    apart = tmp_path / "shared" / "sweep" / "trial"
    after_the_first_epoch = itertools.count()
    stopped = train(
        config,
        tmp_path / "here",
        checkpoints=apart,
        stop=lambda: PREEMPTED if next(after_the_first_epoch) == STEPS + EVALUATIONS + 1 else None,
    )
    assert stopped.state is TrialState.PREEMPTED
    assert not list((tmp_path / "here").glob("*.ckpt"))
    assert {path.name for path in apart.iterdir()} >= {"last.ckpt", "best.safetensors"}
    done = what_stays(tmp_path / "there", train(config, tmp_path / "there", checkpoints=apart))
    assert done == what_stays(tmp_path / "whole", train(config, tmp_path / "whole"))
    assert not (tmp_path / "shared" / "sweep").exists(), "nothing is left of what nobody needs"


def test_the_best_weights_are_those_of_the_checkpoint_gone_on_with_wherever_agents_before_saved(tmp_path: Path) -> None:
    config = everything_on("simple_cnn")
    trial, here, there = tmp_path / "trial", tmp_path / "here", tmp_path / "there"

    def end_after(steps: int, checkpoints: Path | None) -> None:
        asked = itertools.count()
        stopped = train(
            config, trial, checkpoints=checkpoints, stop=lambda: PREEMPTED if next(asked) == steps else None
        )
        assert stopped.state is TrialState.PREEMPTED

    whole = what_stays(tmp_path / "whole", train(config, tmp_path / "whole"))
    epoch = STEPS + EVALUATIONS
    assert whole["result"]["best_epoch"] == 2, "or the last epoch would put everything right"
    end_after(2 * epoch + 1, here)
    end_after(epoch + 1, there)  # begun anew, the folder's best weights are the first epoch's
    assert what_stays(trial, train(config, trial, checkpoints=here)) == whole


def test_a_trial_saved_in_its_folder_is_gone_on_with_by_an_agent_whose_checkpoints_lie_elsewhere(
    tmp_path: Path,
) -> None:
    config = everything_on("simple_cnn")
    trial, apart = tmp_path / "trial", tmp_path / "apart"
    interrupted(config, trial, [(PREEMPTED, STEPS + EVALUATIONS + 1)])
    first_rows = (trial / "history.jsonl").read_text()
    asked = itertools.count()
    train(config, trial, checkpoints=apart, stop=lambda: PREEMPTED if next(asked) == 1 else None)
    assert (trial / "history.jsonl").read_text() == first_rows, "what a clock measured is the same"
    assert (apart / "last.ckpt").is_file()
    assert not list(trial.glob("*.ckpt")), "the older one goes"
    done = what_stays(trial, train(config, trial, checkpoints=apart))
    assert done == what_stays(tmp_path / "whole", train(config, tmp_path / "whole"))


def test_a_trial_killed_by_the_system_goes_on(tmp_path: Path) -> None:
    config = everything_on("simple_cnn")
    script = """
import os, signal, sys
from pathlib import Path
from fer_sweep.config.trial import parse_trial
from fer_sweep.training.loop import train
import json
steps = iter(range(7))
train(parse_trial(json.loads(sys.argv[1])), Path(sys.argv[2]),
      stop=lambda: os.kill(os.getpid(), signal.SIGKILL) if next(steps) == 5 else None)
"""
    command = [sys.executable, "-c", script, config.model_dump_json(), str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    resumed = what_stays(tmp_path / "killed", train(config, tmp_path / "killed"))
    assert resumed == what_stays(tmp_path / "whole", train(config, tmp_path / "whole"))


def test_seeds_differ(tmp_path: Path) -> None:
    config = everything_on("simple_cnn")
    other = config.model_copy(update={"seed": 4})
    first = what_stays(tmp_path / "a", train(config, tmp_path / "a"))
    assert first["history"] != what_stays(tmp_path / "b", train(other, tmp_path / "b"))["history"]


def _fingerprint(folder: Path) -> str:
    from fer_sweep.data.cache import open_dataset

    assert folder.is_dir()
    return open_dataset("tiny").info.fingerprint


def _plain(value: Any) -> Any:
    """Tensors as bytes and the rest as it is, so that == compares bit for bit; timing left out."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.shape, value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "images_per_second"}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
