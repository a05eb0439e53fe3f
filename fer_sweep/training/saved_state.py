"""Whether what a checkpoint holds is what this training would have written.

Its checksum only says that it was not damaged. A file that somebody else made, or another version of fersweep, must
not end in a traceback hours later, nor in a training that goes on with something else.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from fer_sweep.config.metrics import EPOCH_METRICS
from fer_sweep.records import CLASSES
from fer_sweep.training.faces import batches
from fer_sweep.training.history import check_row
from fer_sweep.training.precision import Precision

if TYPE_CHECKING:
    from fer_sweep.training.trial import Trial

_PROGRESS: dict[str, type[int] | type[float]] = {
    "epochs_done": int,
    "step": int,
    "images": int,
    "epoch_seconds": float,
    "seconds": float,
    "peak_memory_mb": float,
}
_BEST: dict[str, type[int] | type[float]] = {"epoch": int, "val_acc": float, "train_acc": float, "val_acc_clean": float}
_MOMENTS = {"adamw": {"step", "exp_avg", "exp_avg_sq"}, "sgd": {"momentum_buffer"}}
"""What an optimizer keeps of each parameter."""


def check_state(saved: Mapping[str, Any], trial: "Trial") -> None:
    """See that every part has the type, shape and range that ``trial`` gives it.

    Raises:
        ValueError: One has not; the message says which.
    """
    try:
        _check_weights("model", saved, trial.model)
        if trial.average is not None:
            _check_weights("average", saved, trial.average.model)
        _check_optimizer(_dictionary("optimizer", saved["optimizer"]), trial.optimizer)
        _check_progress(_dictionary("progress", saved["progress"]), saved["history"], trial)
        if saved["precision"] not in get_args(Precision):
            raise ValueError("precision is none that there is")
        for name in ("rng", "cuda_rng"):
            found = saved[name]
            if not (isinstance(found, Tensor) and found.dtype == torch.uint8) and (name == "rng" or found is not None):
                raise ValueError(f"{name} is no generator's state")
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _dictionary(name: str, found: Any) -> Mapping[Any, Any]:
    # Not left to what an index does: a tensor takes text for one, with a warning of its own.
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no dictionary")
    return found


def _check_weights(name: str, saved: Mapping[str, Any], model: nn.Module) -> None:
    wanted, found = model.state_dict(), _dictionary(name, saved[name])
    if found.keys() != wanted.keys():
        raise ValueError(f"{name} has other parts")
    for part, tensor in wanted.items():
        _check_tensor(f"{name}.{part}", found[part], tensor.shape, tensor.dtype)


def _check_tensor(name: str, found: Any, shape: Sequence[int], dtype: torch.dtype) -> None:
    if not isinstance(found, Tensor) or found.shape != torch.Size(shape) or found.dtype != dtype:
        raise ValueError(f"{name} is no {dtype} of shape {tuple(shape)}")


def _check_optimizer(found: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    wanted = optimizer.state_dict()["param_groups"]
    groups = found["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(wanted):
        raise ValueError("optimizer has other groups")
    for group, fresh in zip(groups, wanted, strict=True):
        _dictionary("optimizer.param_groups", group)
        # The learning rate is set before every step; all else stays as the configuration has it.
        if {**fresh, **group, "lr": 0.0} != {**fresh, "lr": 0.0} or not isinstance(group["lr"], float):
            raise ValueError("optimizer has other settings")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wanted_moments = _MOMENTS["sgd" if isinstance(optimizer, torch.optim.SGD) else "adamw"]
    state = _dictionary("optimizer.state", found["state"])
    if not state.keys() <= set(range(len(parameters))):
        raise ValueError("optimizer has other parameters")
    for index, moments in state.items():
        if _dictionary("optimizer.state", moments).keys() != wanted_moments:
            raise ValueError("optimizer has other moments")
        for name, value in moments.items():
            if not (name == "momentum_buffer" and value is None):  # plain gradient descent has none
                shape = () if name == "step" else parameters[index].shape
                _check_tensor(f"optimizer.{index}.{name}", value, shape, torch.float32)


def _check_progress(found: Mapping[str, Any], history: Sequence[Any], trial: "Trial") -> None:
    _check_tensor("progress.loss_sum", found["loss_sum"], (), torch.float32)
    best = found["best"]
    if found.keys() != {*_PROGRESS, "loss_sum", "best"}:
        raise ValueError("progress has other parts")
    _check_numbers("progress", found, _PROGRESS)
    done, steps = found["epochs_done"], sum(1 for _ in batches(len(trial.faces.train), trial.config.batch_size))
    if done > trial.config.epochs or found["step"] > steps or bool(found["step"]) != bool(found["images"]):
        raise ValueError("progress is beyond the training")
    if not isinstance(history, list) or len(history) != done:
        raise ValueError("history has not the epochs that are done")
    for epoch, row in enumerate(history, start=1):
        if check_row(row, epoch).keys() != set(EPOCH_METRICS):
            raise ValueError(f"history has other metrics in epoch {epoch}")
    if best is not None:
        if _dictionary("progress.best", best).keys() != {*_BEST, "confusion"}:
            raise ValueError("progress.best has other parts")
        _check_numbers("progress.best", best, _BEST)
        rows = best["confusion"]
        numbers = [number for row in rows for number in row]
        if [len(row) for row in rows] != [len(CLASSES)] * len(CLASSES) or not all(type(n) is int for n in numbers):
            raise ValueError("progress.best.confusion is no confusion matrix")


def _check_numbers(name: str, found: Mapping[str, Any], kinds: Mapping[str, type[int] | type[float]]) -> None:
    for part, kind in kinds.items():
        value = found[part]
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 <= value < 2**53:
            raise ValueError(f"{name}.{part} is {value!r}"[:100])
