"""A trained model's weights as a file: the tensors, and in its metadata what the training says of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fer_sweep.config.trial import TrialConfig, parse_trial
from fer_sweep.errors import CheckpointError, ConfigError
from fer_sweep.files import parse_object
from fer_sweep.records import DataSpec


@dataclass(frozen=True)
class Trained:
    """What the training says of a model."""

    config: TrialConfig
    spec: DataSpec
    pixel_mean: float
    """Of raw pixel values, 0 to 255, as in training."""
    pixel_std: float
    val_acc: float
    """Of its best epoch, as the training measured it."""
    fingerprint: str | None
    """Of the data set it was trained on; None in a model that an earlier release trained."""


def read_weights(path: Path) -> tuple[Trained, dict[str, Tensor]]:
    """Read the weights of a trial or an export, onto the CPU.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            about: dict[str, Any] = parse_object((stored.metadata() or {})["fersweep"].encode())
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 it is no mapping
        trained = Trained(
            parse_trial(about["config"]),
            DataSpec.model_validate(about.get("spec", {})),  # an earlier release knew only the default
            float(about["pixel_mean"]),
            float(about["pixel_std"]),
            float(about["val_acc"]),
            str(about["data"]) if "data" in about else None,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, ConfigError) as error:
        raise CheckpointError(
            f"cannot load a model from {path.parent}: {error}",
            hint="give the folder of a trained trial, or one that fersweep export wrote",
        ) from error
    return trained, weights
