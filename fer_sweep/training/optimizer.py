"""AdamW and Nesterov SGD with decay groups, the learning rate of every step, and the moving average of weights."""

import copy
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from fer_sweep.config.trial import SharedConfig

_Class = TypeVar("_Class", bound=type[torch.optim.Optimizer])
_UNDECAYED = ("cls_token", "position_embeddings")
"""ViT's learnt inputs: no weights, so not decayed (as in DeiT, Touvron et al. 2021)."""


def build_optimizer(model: nn.Module, config: SharedConfig) -> torch.optim.Optimizer:
    """The configuration's optimizer in its fused form; biases, normalisation and embeddings are not decayed."""
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim <= 1 or name.endswith(_UNDECAYED)
        (rest if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        # Nesterov is undefined without momentum; then it is plain gradient descent.
        return _SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0.0, fused=True)
    return _AdamW(groups, lr=config.lr, fused=True)


def _uncompiled(kind: _Class) -> _Class:
    """An optimizer's class without what torch wraps around its methods for torch.compile's sake.

    The first call through one of those wrappers imports torch._dynamo, whether anything is compiled or not: 40 % of
    what an agent of CNNs would import before its first trial. All else that they do is to turn gradients off.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return cast("_Class", type(kind.__name__, (kind,), methods))


_AdamW, _SGD = _uncompiled(torch.optim.AdamW), _uncompiled(torch.optim.SGD)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer keeps of each parameter, such as ``3.exp_avg`` of the parameter with index 3."""
    return {
        f"{index}.{name}": value
        for index, of_parameter in optimizer.state_dict()["state"].items()
        for name, value in of_parameter.items()
        if value is not None  # the momentum buffer of plain gradient descent
    }


def restore_moments(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Restore what ``moments`` gave.

    Raises:
        ValueError, LookupError, RuntimeError: It belongs to another model.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        index, _, name = key.partition(".")
        of_parameter = state.setdefault(int(index), {})
        if name == "step":
            of_parameter[name] = value
        else:  # in the memory format of its parameter, on which the fused kernels rely
            of_parameter[name] = torch.empty_like(parameters[int(index)]).copy_(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def learning_rate(config: SharedConfig, step: int, total: int) -> float:
    """The learning rate of one step: linear warm-up to ``lr``, then a cosine towards zero.

    Args:
        config: ``lr`` is the peak, ``warmup`` the fraction of all steps that leads there.
        step: Counted from 0 over the whole training.
        total: Steps of the whole training.
    """
    warmup = round(config.warmup * total)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))


class WeightAverage:
    """Exponential moving average of a model's weights and buffers, held in a copy of the model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # Listed once: a walk through a model's modules takes a millisecond or two, and a step on a GPU no more.
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        self._means, self._values = _sides(pair for pair in pairs if pair[0].is_floating_point())
        self._copies, self._originals = _sides(pair for pair in pairs if not pair[0].is_floating_point())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model after a step (counted from 0).

        Early on the decay is smaller, or a short training's average would still hold the random start.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._means, self._values, 1.0 - decay)
        if self._copies:
            torch._foreach_copy_(self._copies, self._originals)


def _sides(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    listed = list(pairs)
    return [one for one, _ in listed], [other for _, other in listed]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(parameter.detach() for parameter in model.parameters()), *model.buffers()]
