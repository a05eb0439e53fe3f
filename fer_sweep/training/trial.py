"""A trial in training: its setup, its state, how that is saved and restored, and its result."""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt
from safetensors.torch import save
from torch import Tensor, nn

from fer_sweep.config.trial import SharedConfig, TrialConfig, parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.errors import CheckpointError, ConfigError, OtherData
from fer_sweep.files import RESULT, WEIGHTS, read_json, write_atomically
from fer_sweep.models import build_model, memory_format
from fer_sweep.records import TrialResult
from fer_sweep.training.checkpoint import Checkpoints, on_cpu
from fer_sweep.training.devices import peak_memory_mb, restore_rng, rng_state
from fer_sweep.training.distillation import load_teacher
from fer_sweep.training.evaluation import Confusion, scores
from fer_sweep.training.faces import Faces
from fer_sweep.training.history import History
from fer_sweep.training.optimizer import WeightAverage, build_optimizer, moments, restore_moments
from fer_sweep.training.precision import Precision, choose_precision
from fer_sweep.training.samples import choose_samples
from fer_sweep.training.weights import check_same_data, named_weights, read_weights
from fer_sweep.verdicts import judge

CONFIG, HISTORY = "config.json", "history.jsonl"


class Best(BaseModel):
    """The epoch with the highest validation accuracy so far; the earliest of equals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: NonNegativeInt
    val_acc: NonNegativeFloat
    train_acc: NonNegativeFloat
    val_acc_clean: NonNegativeFloat
    confusion: Confusion


class Progress(BaseModel):
    """How far the training is: epochs done, and steps done of the current epoch."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    loss_sum: Tensor = Field(exclude=True)
    """(), float32: over the images of the current epoch; a tensor, so that no step waits for the device."""
    epochs_done: NonNegativeInt = 0
    step: NonNegativeInt = 0
    """Steps done of the current epoch."""
    images: NonNegativeInt = 0
    """Images seen in the current epoch."""
    epoch_seconds: NonNegativeFloat = 0.0
    """Spent on training steps of the current epoch."""
    seconds: NonNegativeFloat = 0.0
    """Spent on the trial by earlier attempts."""
    peak_memory_mb: NonNegativeFloat = 0.0
    """Of earlier attempts."""
    best: Best | None = None


class SavedState(BaseModel):
    """What a checkpoint holds besides tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    progress: Progress
    precision: Precision
    history: list[dict[str, int | float]]


class Trial:
    """One training under way, set up on a device and resumed from its newest checkpoint, if any.

    Raises:
        CheckpointError, OtherData, DataError, ConfigError, WeightsUnavailable: As ``loop.train``.
    """

    def __init__(
        self,
        config: TrialConfig,
        folder: Path,
        device: torch.device,
        *,
        checkpoints: Path | None = None,
        fingerprint: str | None = None,
        micro_batch: int | None = None,
    ) -> None:
        self._began = time.perf_counter()
        dataset = open_dataset(config.data)
        self.fingerprint = dataset.info.fingerprint
        if fingerprint not in (None, self.fingerprint):
            raise OtherData(
                f"data set {config.data} has been replaced: it is {self.fingerprint[:12]} "
                f"(from {dataset.info.source}), and this trial needs {str(fingerprint)[:12]}",
                hint="prepare that data again (fersweep data prepare PATH --name NAME --replace), "
                "or create another sweep",
            )
        self.config, self.folder, self.device = config, folder, device
        self.micro_batch = micro_batch  # images that go through the model at once; None for whole batches
        self.samples = choose_samples(dataset, config)
        self.faces = Faces(dataset, self.samples, device)
        # Before the seed, since building it draws random numbers: the student starts as it would without a teacher.
        self.teacher = load_teacher(config, self.faces, self.fingerprint, device)
        torch.manual_seed(config.seed)
        self.model = build_model(config, dataset.info.spec).to(device).to(memory_format=memory_format(config, device))
        self.precision = choose_precision(config, device)
        self.average = WeightAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.optimizer = build_optimizer(self.model, config)
        self.history = History(folder / HISTORY)
        self.checkpoints = Checkpoints(folder, config, self.fingerprint, apart=checkpoints)
        self.progress = Progress(loss_sum=torch.zeros((), device=device))
        self._unwritten: dict[str, Tensor] | None = None  # the best epoch's weights until best.safetensors has them
        self.restore()

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated and kept: the averaged weights, or the weights themselves."""
        return self.average.model if self.average else self.model

    def keep_best(self, best: Best) -> None:
        """Remember a new best epoch with the weights as they are now."""
        self.progress.best = best
        self._unwritten = on_cpu(self.evaluated.state_dict())

    def save(self) -> None:
        """Write the best weights if they are new, then a checkpoint."""
        self._write_best()
        times = {"seconds": self._seconds(), "peak_memory_mb": self._peak_memory_mb()}
        progress = self.progress.model_copy(update=times)
        state = SavedState(progress=progress, precision=self.precision, history=self.history.rows)
        tensors = {"loss_sum": self.progress.loss_sum, **rng_state(self.device)}
        parts = {"model": self.model.state_dict(), "optimizer": moments(self.optimizer)}
        if self.average:
            parts["average"] = self.average.model.state_dict()
        for part, of_part in parts.items():
            tensors |= {f"{part}.{name}": tensor for name, tensor in of_part.items()}
        self.checkpoints.save(state.model_dump(mode="json"), tensors)

    def restore(self) -> None:
        """Resume from the newest checkpoint, or start with an empty history if there is none.

        Raises:
            CheckpointError: It belongs to another configuration or to other data, or does not fit this version's model;
                or the weights to start from are missing or do not fit.
        """
        saved = self.checkpoints.load()
        if saved is None:
            self.history.restart([])
            if self.config.weights_from is not None:
                self._start_from_weights()
            return
        try:
            loss_sum = saved.tensors["loss_sum"].to(self.device)
            state = SavedState(**{**saved.state, "progress": {**saved.state["progress"], "loss_sum": loss_sum}})
            self.model.load_state_dict(_part("model", saved.tensors))
            if self.average:
                self.average.model.load_state_dict(_part("average", saved.tensors))
            restore_moments(self.optimizer, _part("optimizer", saved.tensors))
            restore_rng(self.device, saved.tensors)
        except (ValueError, TypeError, LookupError, RuntimeError) as error:
            if "out of memory" in str(error):  # on MPS a plain RuntimeError
                raise
            raise CheckpointError(
                f"the checkpoint in {self.folder} does not fit this version of fersweep: {error}",
                hint="train into another folder, or delete last.ckpt and previous.ckpt there to start from scratch",
            ) from error
        self.checkpoints.restore_weights()
        self.progress = state.progress
        self.precision = state.precision  # this host might choose another, and end with other bits
        self.history.restart(state.history)

    def _start_from_weights(self) -> None:
        theirs, weights = read_weights(named_weights("weights_from", self.config))
        check_same_data("weights_from", self.config, theirs, fingerprint=self.fingerprint, spec=self.faces.spec)
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            own = [field for field in type(theirs.config).model_fields if field not in SharedConfig.model_fields]
            sizes = [f"{field}={getattr(theirs.config, field)}" for field in own]
            raise CheckpointError(
                f"weights_from={self.config.weights_from}: those weights do not fit this model, "
                f"they are of {', '.join(sizes)}",
                hint="set the same model and sizes, or leave weights_from out",
            ) from error
        if self.average:
            self.average.model.load_state_dict(weights)

    def finish(self, *, diverged: bool = False) -> TrialResult:
        """Write best.safetensors and result.json, and remove the checkpoints, which nothing needs any more."""
        self._write_best()
        result = self.result(diverged=diverged)
        write_atomically(self.folder / RESULT, result.model_dump_json(indent=2) + "\n")
        self.checkpoints.remove()
        return result

    def result(self, *, diverged: bool = False) -> TrialResult:
        """The result of the epochs so far."""
        classes = self.faces.spec.classes
        no_hits = tuple((0,) * len(classes) for _ in classes)
        best = self.progress.best or Best(epoch=0, val_acc=0.0, train_acc=0.0, val_acc_clean=0.0, confusion=no_hits)
        macro_f1, recall = scores(best.confusion)
        return TrialResult(
            best_val_acc=best.val_acc,
            best_epoch=best.epoch,
            train_acc=best.train_acc,
            train_val_gap=best.train_acc - best.val_acc,
            val_acc_clean=best.val_acc_clean,
            macro_f1=macro_f1,
            per_class_recall=recall,
            confusion_matrix=best.confusion,
            classes=classes,
            epochs=self.progress.epochs_done,
            parameters=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            seconds=self._seconds(),
            images_per_second=statistics.median(row["images_per_second"] for row in self.history.rows)
            if self.history.rows
            else 0.0,
            peak_memory_mb=self._peak_memory_mb(),
            precision=self.precision,
            micro_batch=self.micro_batch,
            verdict=judge(diverged=diverged, confusion=best.confusion, train_acc=best.train_acc, val_acc=best.val_acc),
        )

    def _write_best(self) -> None:
        if self._unwritten is None or self.progress.best is None:
            return
        about = {
            "config": self.config.model_dump(),
            "data": self.fingerprint,
            "spec": self.faces.spec.model_dump(mode="json"),
            "epoch": self.progress.best.epoch,
            "val_acc": self.progress.best.val_acc,
            # What raw pixels (0 to 255) are normalised by before they enter this model.
            "pixel_mean": self.faces.mean,
            "pixel_std": self.faces.std,
        }
        # Under one key: safetensors writes several in random order, and equal trials should give equal files.
        write_atomically(self.folder / WEIGHTS, save(self._unwritten, {"fersweep": json.dumps(about)}))
        self._unwritten = None

    def _seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self._began

    def _peak_memory_mb(self) -> float:
        return max(self.progress.peak_memory_mb, peak_memory_mb(self.device))


def _part(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with ``name`` and a dot, by the rest of their names."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def claim_folder(config: TrialConfig, folder: Path) -> TrialResult | None:
    """Claim a folder for a configuration; returns the result if it has been trained there already.

    Raises:
        CheckpointError: The folder belongs to another configuration, or its result cannot be read.
    """
    path = folder / CONFIG
    try:
        theirs = parse_trial(read_json(path)) if path.exists() else config
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint="train into another folder") from error
    if theirs != config:
        raise CheckpointError(
            f"{folder} holds a trial of another configuration ({path.name} differs)",
            hint="train into another folder, or delete this one to start from scratch",
        )
    if not path.exists():
        write_atomically(path, config.model_dump_json(indent=2) + "\n")
    for leftover in folder.glob(".*.*.????????"):
        leftover.unlink(missing_ok=True)  # temporary files of an attempt that was killed while it wrote
    result = folder / RESULT
    try:
        return TrialResult.model_validate(read_json(result)) if result.exists() else None
    except (OSError, ValueError) as error:  # pydantic's are ValueErrors too
        raise CheckpointError(
            f"{result} cannot be read: {error}", hint="delete that file and train again into the same folder"
        ) from error
