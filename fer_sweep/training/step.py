"""One training step; on a GPU, where starting its kernels takes longer than they run, as a CUDA graph."""

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fer_sweep.data.augment import Augmentation
from fer_sweep.data.mixing import Mixing
from fer_sweep.training.distillation import distillation_loss
from fer_sweep.training.evaluation import forward
from fer_sweep.training.trial import Trial

_log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps of a kind of batch taken one kernel at a time before they are captured: the first ones choose algorithms, take
workspaces and make the optimizer's state."""

_Shapes = tuple[torch.Size, ...]


@dataclass(frozen=True)
class Batch:
    """What one step trains on, on the device."""

    positions: Tensor
    """(B,) int64, in the data set."""
    augmentation: Augmentation
    """Of the images there."""
    mixing: Mixing | None = None
    """Of the batch."""

    def __len__(self) -> int:
        return len(self.positions)

    def tensors(self) -> list[Tensor]:
        """All that differs from one batch to the next."""
        mixing = self.mixing.tensors() if self.mixing else ()
        return [self.positions, *(part for part in self.augmentation.tensors() if part is not None), *mixing]

    def copy(self) -> "Batch":
        """The same in memory of its own."""
        mixing = self.mixing.each(torch.clone) if self.mixing else None
        return Batch(self.positions.clone(), self.augmentation.copy(), mixing)


class Steps:
    """Takes a trial's steps, each of which changes the weights and adds to ``progress.loss_sum``."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._graphs = _Graphs(trial) if trial.device.type == "cuda" else None

    def take(self, batch: Batch, lr: float) -> None:
        """Take a step with this learning rate."""
        if self._graphs is None:
            _step(self._trial, batch, lr)
        else:
            self._graphs.take(batch, lr)
        self._trial.progress.images += len(batch)
        self._trial.progress.step += 1


class _Graphs:
    """Steps on a GPU: a graph for each kind of batch, captured once and replayed on batches copied into its memory.

    Batches are of one kind if their tensors have the same shapes.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._stream = torch.cuda.Stream(trial.device)  # type: ignore[no-untyped-call] # torch leaves it untyped
        self._lr = torch.zeros((), device=trial.device)
        self._taken: dict[_Shapes, int] = {}
        self._captured: dict[_Shapes, tuple[torch.cuda.CUDAGraph, Batch]] = {}
        self._can_capture = True

    def take(self, batch: Batch, lr: float) -> None:
        kind = _shapes(batch)
        if kind not in self._captured and self._can_capture and self._taken.get(kind, 0) >= WARM_UP:
            self._capture(batch)
        if kind in self._captured:
            graph, static = self._captured[kind]
            torch._foreach_copy_(static.tensors(), batch.tensors())
            self._lr.fill_(lr)
            graph.replay()
            return
        self._taken[kind] = self._taken.get(kind, 0) + 1
        # Where it is captured later: autograd would wait for another stream's work in the middle of a capture.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            _step(self._trial, batch, lr)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, batch: Batch) -> None:
        """Record a step without taking it."""
        graph, static = torch.cuda.CUDAGraph(), batch.copy()
        pool = next((captured.pool() for captured, _ in self._captured.values()), None)
        try:
            # Thread-local: what other threads do meanwhile is no part of a step and no error.
            with (
                _capturing(self._trial.optimizer),
                torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                _step(self._trial, static, self._lr)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning("this GPU's steps cannot be captured as a CUDA graph and take longer: %s", error)
            self._can_capture = False
            self._trial.optimizer.zero_grad(set_to_none=True)  # their memory went with the graph
            _leave_capture(self._trial.device)
        else:
            self._captured[_shapes(batch)] = graph, static


def _shapes(batch: Batch) -> _Shapes:
    return tuple(tensor.shape for tensor in batch.tensors())


def _leave_capture(device: torch.device) -> None:
    """Replace the device's random generator, which a failed capture leaves unusable, by a copy."""
    generator = torch.cuda.default_generators[device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())


@contextlib.contextmanager
def _capturing(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Make Adam capturable, and restore what must not be saved: that flag and the tensor of the learning rate."""
    names: tuple[str, ...] = ("lr", "capturable")
    before = [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, values in zip(optimizer.param_groups, before, strict=True):
            group.update(values)


def _step(trial: Trial, batch: Batch, lr: float | Tensor) -> None:
    """Nothing here waits for the device, or depends on values there."""
    config = trial.config
    labels = trial.faces.labels[batch.positions]  # (B,)
    images = batch.augmentation.apply(trial.faces.batch(batch.positions))  # (B, C, H, W)
    if batch.mixing is not None:
        images = batch.mixing.apply(images)

    trial.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros_like(trial.progress.loss_sum)
    for chunk in _chunks(len(batch), trial.micro_batch):
        logits = forward(trial.model, images[chunk], trial.precision)
        own = None if batch.mixing is None else batch.mixing.label
        of_chunk = _loss(logits, labels[chunk], labels.flip(0)[chunk], own, config.label_smoothing)
        if trial.teacher is not None:
            taught = trial.teacher.logits(images[chunk], trial.precision)
            of_teacher = distillation_loss(logits, taught, config.distill_temperature)
            of_chunk = torch.lerp(of_chunk, of_teacher, config.distill_weight)
        of_chunk = of_chunk * (len(logits) / len(batch))
        of_chunk.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        loss += of_chunk.detach()
    if config.clip_norm:
        torch.nn.utils.clip_grad_norm_(trial.model.parameters(), config.clip_norm)
    for group in trial.optimizer.param_groups:
        group["lr"] = lr
    trial.optimizer.step()
    trial.progress.loss_sum += loss * len(batch)


def _chunks(count: int, size: int | None) -> Iterator[slice]:
    """Cut a batch into as few parts of at most ``size`` as there can be, alike to one image."""
    parts = 1 if size is None else math.ceil(count / size)
    for part in range(parts):
        yield slice(count * part // parts, count * (part + 1) // parts)


def _loss(logits: Tensor, labels: Tensor, mixed_in: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if weight is None:
        return loss
    return torch.lerp(functional.cross_entropy(logits, mixed_in, label_smoothing=smoothing), loss, weight)
