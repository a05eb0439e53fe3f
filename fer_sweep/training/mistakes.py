"""What a trained model gets most wrong: ``python -m fer_sweep.training.mistakes FOLDER``.

A process of its own, for callers that must not import torch: it writes ``mistakes.json`` beside the model.
"""

import json
import sys
from pathlib import Path

import torch

from fer_sweep.data.cache import open_dataset
from fer_sweep.errors import FersweepError
from fer_sweep.files import write_atomically
from fer_sweep.training.evaluation import forward
from fer_sweep.training.examination import check_data, load_examinee
from fer_sweep.training.faces import Faces
from fer_sweep.training.samples import choose_samples

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
        each with its ``index`` in the data set, the ``true`` class and the ``predicted`` one with its ``probability``.

    Raises:
        CheckpointError: The model cannot be read, or was trained on other content of its data set.
        DataError: Its data set is not prepared on this host.
    """
    device = torch.device("cpu")
    examinee = load_examinee(folder, device)
    dataset = open_dataset(examinee.config.data)
    check_data(examinee, dataset)
    faces = Faces(dataset, choose_samples(dataset, examinee.config), device)
    faces.mean, faces.std = examinee.pixel_mean, examinee.pixel_std  # another release may compute another digit
    with torch.inference_mode():
        parts = torch.split(faces.val, _BATCH)
        logits = [forward(examinee.model, faces.batch(part), examinee.precision) for part in parts]
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


def main() -> None:
    """Run as a module: one argument, the trial's folder."""
    try:
        write_mistakes(Path(sys.argv[1]))
    except FersweepError as error:
        sys.exit(f"{error} ({error.hint})" if error.hint else str(error))


if __name__ == "__main__":
    main()
