"""The frozen records that cross the seams, and the words every floor shares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from fer_sweep.config.metrics import EPOCH_METRICS as EPOCH_METRICS
from fer_sweep.config.trial import IMAGE_SIZE, TrialConfig

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven expressions in the order of FER2013's CSV: the classes of a data set that names no others."""


class DataSpec(BaseModel):
    """The classes and the image shape of a data set; the defaults are FER2013's."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    classes: tuple[str, ...] = CLASSES
    """A label is an index into this tuple."""
    channels: PositiveInt = 1
    height: PositiveInt = IMAGE_SIZE
    """Pixels."""
    width: PositiveInt = IMAGE_SIZE
    """Pixels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image that enters a model: (channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of an image in prepared data: (height, width) if it has one channel, else ``shape``."""
        return self.shape if self.channels > 1 else self.shape[1:]


FER2013 = DataSpec()


class SweepState(StrEnum):
    """The state of a sweep."""

    RUNNING = "running"
    PAUSED = "paused"
    """Hands out nothing; agents wait."""
    STOPPED = "stopped"
    """Hands out nothing; running trials finish, then agents end. Can be resumed."""
    CANCELLED = "cancelled"
    """Running trials are checkpointed and stopped. Final."""
    FINISHED = "finished"
    """At its cap, exhausted, its budget spent, or its target reached. More trials, a changed space or a configuration
    picked by hand let it run again."""


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    PREEMPTED = "preempted"
    PAUSED = "paused"
    """Checkpointed at the end of a turn; resumed if the search asks for it, pruned if the sweep ends without that."""
    FAILED = "failed"

    @property
    def has_ended(self) -> bool:
        """Whether no further attempt follows: it is neither running, preempted nor paused."""
        return self not in (TrialState.RUNNING, TrialState.PREEMPTED, TrialState.PAUSED)

    @property
    def has_value(self) -> bool:
        """Whether it is complete, pruned or paused, so that its result counts."""
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.PAUSED)


class StopReason(StrEnum):
    """Why a running trial must stop before its last epoch."""

    PRUNED = "pruned"
    """The search has seen enough; never resumed."""
    PREEMPTED = "preempted"
    """Checkpointed; resumed as soon as a slot is free, on this host or another."""
    PAUSED = "paused"
    """Checkpointed; resumed when the search asks for it."""


class Cause(StrEnum):
    """Why an attempt ended early, where a retry may help."""

    OUT_OF_MEMORY = "out of memory"
    KILLED = "killed"
    """From outside: by hand, by a scheduler, or together with the forkserver."""
    DEVICE = "device"
    """The GPU or its driver reported an error of its own."""


class Verdict(StrEnum):
    """What a finished trial's curves say; thresholds stand in ``fer_sweep.verdicts``."""

    DIVERGED = "diverged"
    COLLAPSED = "collapsed"
    UNDERFIT = "underfit"
    OVERFIT = "overfit"
    BALANCED = "balanced"

    @property
    def may_win(self) -> bool:
        """Whether a trial of this verdict has learnt something: it neither diverged nor collapsed."""
        return self not in (Verdict.DIVERGED, Verdict.COLLAPSED)


class TrialResult(BaseModel):
    """The result of one trained configuration: the content of ``result.json`` and of the W&B summary."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    best_val_acc: float
    """Highest validation accuracy over the epochs, in [0, 1]."""
    best_epoch: int
    """The epoch it was reached in, counted from 1; 0 when no epoch had a finite loss."""
    train_acc: float
    """Accuracy at the best epoch on a fixed sample of training images, measured as val_acc is."""
    train_val_gap: float
    """train_acc - best_val_acc at the best epoch."""
    val_acc_clean: float
    """Best epoch's accuracy on the validation images with no copy in the training split."""
    macro_f1: float
    per_class_recall: tuple[float, ...]
    """In the order of ``classes``; 0 for a class that the validation split lacks."""
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Rows are true classes, columns predicted ones, in the order of ``classes``."""
    classes: tuple[str, ...] = Field(default=CLASSES, exclude_if=lambda classes: classes == CLASSES)
    """Of the data set; written only where they are not FER2013's."""
    epochs: int
    """Epochs trained in all."""
    parameters: int
    """Trainable parameters."""
    seconds: float
    """Training wall time, summed over resumptions."""
    images_per_second: float
    """Training images a second of the epochs' training part, evaluation left out; the median epoch."""
    peak_memory_mb: float
    """Peak resident memory of the process, or on a GPU the peak allocated there."""
    precision: str
    """The arithmetic that `precision: auto` selected: fp32 or bf16."""
    micro_batch: int | None = None
    """Images that went through the model at once, where memory did not hold a whole batch; steps were whole."""
    verdict: Verdict

    @property
    def numbers(self) -> dict[str, float]:
        """Its single numbers by name."""
        return {name: value for name, value in self.model_dump().items() if isinstance(value, int | float)}


class Averaging(StrEnum):
    """What a test averages the predicted probabilities over (test-time augmentation)."""

    NONE = "none"
    """The image as it is."""
    FLIP = "flip"
    """The image and its mirror image."""
    TENCROP = "tencrop"
    """The four corners and the centre, and their mirror images."""


class ExportFormat(StrEnum):
    """What a trained model is exported as."""

    SAFETENSORS = "safetensors"
    """Weights and configuration."""
    ONNX = "onnx"
    """One graph from grey values to logits."""
    HUGGINGFACE = "huggingface"
    """A folder for transformers' Auto classes; a ViT's only."""


class Examination(BaseModel):
    """The result of a trained model on the images of the test split."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    averaging: Averaging
    images: int
    """In the test split."""
    right: int
    """Of them classified correctly."""
    clean_images: int
    """Test images with no copy among the training images."""
    clean_right: int
    """Of those classified correctly."""
    macro_f1: float
    per_class_recall: tuple[float, ...]
    """In the order of ``classes``; 0 for a class that the test split lacks."""
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Rows are true classes, columns predicted ones, in the order of ``classes``."""
    classes: tuple[str, ...] = Field(default=CLASSES, exclude_if=lambda classes: classes == CLASSES)
    """Of the data set; written only where they are not FER2013's."""
    precision: str
    """The arithmetic: fp32 or bf16."""
    val_acc: float | None
    """Accuracy on the validation images with the same averaging; None if the training data is not prepared here."""

    @property
    def accuracy(self) -> float:
        """Share of the test images classified correctly, in [0, 1]."""
        return self.right / self.images

    @property
    def clean_accuracy(self) -> float | None:
        """The same of the images with no copy among the training images; None if there are none."""
        return self.clean_right / self.clean_images if self.clean_images else None


@dataclass(frozen=True)
class TrialRequest:
    """One configuration to train, as a search hands it out."""

    trial_id: str
    """Names the trial within its sweep and its folder under ``trials/``."""
    config: TrialConfig
    parameters: Mapping[str, Any]
    """What the sweep file's space gave, by dotted name: the part of ``config`` that is swept or fixed there."""
    attempt: int = 1
    """Attempts at this trial, this one included; above 1 it resumes from its checkpoint."""
    until: int | None = None
    """The epoch that its turn ends after, if the search may pause it: another trial may have the next turn. Every
    attempt is a turn then."""


@dataclass(frozen=True)
class Wait:
    """No trial for now, but the sweep is not over: ask again."""

    reason: str
    """Such as "the sweep is paused"."""
    again_s: float = 1.0
    """When to ask again, in seconds."""
    is_brief: bool = False
    """Too short to be shown to the user."""


@dataclass(frozen=True)
class TrialOutcome:
    """How one attempt at a trial ended."""

    state: TrialState
    result: TrialResult | None = None
    """Present when complete, and when pruned or paused after at least one epoch."""
    reason: str | None = None
    """Why it failed, was pruned or preempted, in a sentence."""
    cause: Cause | None = None
    """For an attempt that ended early; not stored."""


@dataclass(frozen=True)
class TrialRecord:
    """A read-only view of a trial, running or ended."""

    trial_id: str
    state: TrialState
    config: Mapping[str, Any]
    """The whole TrialConfig as plain JSON values."""
    parameters: Mapping[str, Any]
    """The swept part, by dotted name."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The latest reported epoch's metrics; once it ended, those of its result."""
    result: TrialResult | None = None
    reason: str | None = None
    attempt: int = 1
    started_at: float | None = None
    """Unix time, seconds."""
    ended_at: float | None = None
