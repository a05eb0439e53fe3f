"""What a trained model gets most wrong: ``python -m fer_sweep.training.mistakes FOLDER``.

A process of its own, for callers that must not import torch: it writes ``mistakes.json`` beside the model.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from fer_sweep.config.trial import ResNet18Config, TrialConfig, parse_trial
from fer_sweep.data.cache import open_dataset
from fer_sweep.errors import CheckpointError, FersweepError
from fer_sweep.files import write_atomically
from fer_sweep.models import build_model
from fer_sweep.training.evaluation import forward
from fer_sweep.training.faces import Faces
from fer_sweep.training.precision import choose_precision
from fer_sweep.training.samples import choose_samples
from fer_sweep.training.trial import WEIGHTS

MISTAKES = "mistakes.json"
KEPT = 100
"""Mistakes written down, the surest first."""
_BATCH = 256


def write_mistakes(folder: Path) -> Path:
    """Evaluate a trial's best model on the validation split, on the CPU, and write down where it was surest and wrong.

    Args:
        folder: The trial's; holds best.safetensors.

    Returns:
        The file: ``data``, ``fingerprint``, ``validation`` (images looked at), ``wrong`` (of those), and ``mistakes``:
        each its ``index`` in the data set, the ``true`` class and the ``predicted`` one with its ``probability``.

    Raises:
        CheckpointError: The model cannot be read.
        DataError: Its data set is not prepared here.
    """
    config, model, mean, std = _load(folder / WEIGHTS)
    dataset = open_dataset(config.data)
    device = torch.device("cpu")
    faces = Faces(dataset, choose_samples(dataset, config), device)
    faces.mean, faces.std = mean, std  # the model's own: another release may compute them to another digit
    precision = choose_precision(config, device)
    with torch.inference_mode():
        logits = [forward(model, faces.batch(part), precision) for part in torch.split(faces.val, _BATCH)]
        probability, predicted = torch.cat(logits).softmax(dim=1).max(dim=1)  # (n_val,) each
    true = faces.labels[faces.val]
    wrong = (predicted != true).nonzero().flatten()
    surest = wrong[probability[wrong].argsort(descending=True, stable=True)][:KEPT]
    found = {
        "data": dataset.name,
        "fingerprint": dataset.info.fingerprint,
        "validation": len(faces.val),
        "wrong": len(wrong),
        "mistakes": [
            {
                "index": int(faces.val[place]),
                "true": int(true[place]),
                "predicted": int(predicted[place]),
                "probability": round(float(probability[place]), 4),
            }
            for place in surest
        ],
    }
    write_atomically(folder / MISTAKES, json.dumps(found, indent=1) + "\n")
    return folder / MISTAKES


def _load(path: Path) -> tuple[TrialConfig, nn.Module, float, float]:
    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["fersweep"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        config = parse_trial(about["config"])
        # Its weights are in the file: those it started from need not be had again.
        model = build_model(config.model_copy(update={"pretrained": False}) if _is_resnet(config) else config)
        model.load_state_dict(weights)
        return config, model.eval(), float(about["pixel_mean"]), float(about["pixel_std"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint="train again into another folder") from error


def _is_resnet(config: TrialConfig) -> bool:
    return isinstance(config, ResNet18Config)


def main() -> None:
    """Run as a module: one argument, the trial's folder."""
    try:
        write_mistakes(Path(sys.argv[1]))
    except FersweepError as error:
        sys.exit(f"{error} ({error.hint})" if error.hint else str(error))


if __name__ == "__main__":
    main()
