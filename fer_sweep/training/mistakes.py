"""What a trained model gets most wrong: ``python -m fer_sweep.training.mistakes FOLDER``.

A process of its own, for callers that must not import torch: it writes ``mistakes.json`` beside the model.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from fer_sweep.data.cache import open_dataset
from fer_sweep.data.dataset import Split
from fer_sweep.errors import FersweepError
from fer_sweep.files import write_atomically
from fer_sweep.records import Averaging
from fer_sweep.training.examination import check_data, load_examinee, probabilities

MISTAKES = "mistakes.json"
KEPT = 100
"""Mistakes written down, the surest first."""


def write_mistakes(folder: Path) -> Path:
    """Evaluate a trial's best model on the validation split, on the CPU, and write down where it was surest and wrong.

    Returns:
        The file: ``data``, ``fingerprint``, ``validation`` (images looked at), ``wrong`` (of those), and ``mistakes``:
        each with its ``index`` in the data set, the ``true`` class and the ``predicted`` one with its ``probability``.

    Raises:
        CheckpointError: The model cannot be read, or was trained on other content of its data set.
        DataError: Its data set is not prepared on this host.
    """
    examinee = load_examinee(folder, torch.device("cpu"))
    dataset = open_dataset(examinee.config.data)
    check_data(examinee, dataset)
    positions = dataset.indices(Split.VAL)
    found = probabilities(examinee, dataset.images, positions, Averaging.NONE)  # (n, K)
    true, predicted, probability = dataset.labels[positions], found.argmax(axis=1), found.max(axis=1)
    wrong = np.flatnonzero(predicted != true)
    surest = wrong[np.argsort(-probability[wrong], kind="stable")][:KEPT]
    about = {
        "data": dataset.name,
        "fingerprint": dataset.info.fingerprint,
        "validation": len(positions),
        "wrong": len(wrong),
        "mistakes": [
            {
                "index": int(positions[place]),
                "true": int(true[place]),
                "predicted": int(predicted[place]),
                "probability": round(float(probability[place]), 4),
            }
            for place in surest
        ],
    }
    write_atomically(folder / MISTAKES, json.dumps(about, indent=1) + "\n")
    return folder / MISTAKES


def main() -> None:
    """Run as a module: one argument, the trial's folder."""
    try:
        write_mistakes(Path(sys.argv[1]))
    except FersweepError as error:
        sys.exit(f"{error} ({error.hint})" if error.hint else str(error))


if __name__ == "__main__":
    main()
