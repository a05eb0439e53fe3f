"""A trained model's weights as a file, found, read and loaded: the tensors, and what the training says of them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fer_sweep.config.trial import TRIAL_NAME, ResNet18Config, SharedConfig, TrialConfig, parse_trial
from fer_sweep.errors import CheckpointError, ConfigError
from fer_sweep.files import RESULT, WEIGHTS, parse_object, trial_folder
from fer_sweep.models import build_model, memory_format
from fer_sweep.records import DataSpec

EXPORTED = "model.safetensors"
"""The weights in a folder that ``fersweep export`` made."""


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


def weights_in(folder: Path) -> Path:
    """Where the weights in the folder of a trial, or of an export, are or should be."""
    return next((folder / name for name in (WEIGHTS, EXPORTED) if (folder / name).is_file()), folder / WEIGHTS)


def load_trained(path: Path, device: torch.device) -> tuple[Trained, nn.Module]:
    """Load a trained model in evaluation mode from the file of its weights, which describes it, too.

    Raises:
        CheckpointError: The file is missing or damaged.
        WeightsUnavailable: The architecture's description comes from a hub that is out of reach.
    """
    trained, weights = read_weights(path)
    config = trained.config
    # Its weights are about to be replaced, so that those it started from are not needed again.
    built = config.model_copy(update={"pretrained": False}) if isinstance(config, ResNet18Config) else config
    model = build_model(built, trained.spec)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit its architecture: {error}", hint="it was trained by another version of fersweep"
        ) from error
    return trained, model.to(device).to(memory_format=memory_format(config, device)).eval()


def named_weights(field: str, config: SharedConfig) -> Path:
    """The weights of a finished training that ``weights_from`` or ``distill_from`` of a configuration names.

    Raises:
        CheckpointError: There is no such training, or it has not ended.
    """
    name = str(getattr(config, field))
    is_trial = re.fullmatch(TRIAL_NAME, name)
    folder = trial_folder(*name.split("/")) if is_trial else Path(name)
    path = weights_in(folder)
    if path.name == EXPORTED or (folder / RESULT).is_file():  # the weights of a running trial change
        return path
    raise CheckpointError(
        f"{field}={name}: there is no finished trial{'' if is_trial else ' or exported model'} in {folder}",
        hint="name a trial of this home, SWEEP/TRIAL as in fersweep best; if another host has trained it, "
        "train this one there",
    )


def check_same_data(field: str, config: SharedConfig, theirs: Trained, *, fingerprint: str, spec: DataSpec) -> None:
    """Check that the model that ``weights_from`` or ``distill_from`` names was trained on a trial's own data.

    On other data it may have seen images that are validation images here.

    Args:
        field: One of the two.
        config: The trial's configuration.
        theirs: What the training of the other model says of it.
        fingerprint: Of the trial's data set.
        spec: Its classes and the shape of its images.

    Raises:
        CheckpointError: It was trained on other data.
    """
    if theirs.fingerprint not in (None, fingerprint) or theirs.spec != spec:
        raise CheckpointError(
            f"{field}={getattr(config, field)}: that trial was trained on other data, {theirs.config.data} "
            f"({str(theirs.fingerprint)[:12]}), than {config.data} ({fingerprint[:12]})",
            hint=f"name a trial on the same data, or leave {field} out",
        )
