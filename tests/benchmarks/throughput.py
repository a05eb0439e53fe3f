"""Training images a second, against the plain script: same model, batch, augmentation and images, all cores.

Both train on the same drawn faces, stored as JPEG files as FER2013 is; the plain script reads the files, fersweep what
``data prepare`` made of them. Default sizes of every architecture, batch 128, ``precision: auto``; a GPU is used where
there is one. The plain script has a DataLoader worker a core, and where there are more than ``WORKERS`` cores it is
measured with that many too. ``share-MODEL`` says how much of the machine's own fastest matrix multiplication a training
step reaches, and ``same-MODEL`` that bf16 comes to the same accuracy as fp32, one seed a repeat.
"""

import functools
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fer_sweep.agent.gpus import discover
from tests.benchmarks.commands import run
from tests.benchmarks.faces import SUBSET, SUBSET_TRAIN, draw_folders, subset
from tests.benchmarks.rows import Measure, Row

ON_CPU = {"simple_cnn": 4096, "deeper_cnn": 2048, "resnet18": 640, "vit": 2048}
IMAGES = dict.fromkeys(ON_CPU, 28_672) if discover() else ON_CPU
"""Training images an epoch: enough steps to be steady, few enough to be quick; on a GPU as many as FER2013 has."""
WORKERS = 4
"""Of 55 public training scripts for FER2013 in PyTorch (2026), 28 load in the training process itself, 25 with one to
four workers, two with more, and none with as many as there are cores."""
LEARNT: Mapping[str, Mapping[str, object]] = {
    "simple_cnn": {"lr": 1e-3},
    "deeper_cnn": {"lr": 3e-3},
    "resnet18": {"lr": 1e-3, "width": 16},  # at its full width of 64 a seed would take half an hour in fp32
    "vit": {"lr": 1e-3},
}
"""With which each learns something in eight epochs."""
DATA = "bench"
PYTHON = [sys.executable, "-m"]


@functools.cache
def folders() -> Path:
    """Drawn faces as image folders, also prepared as the data set ``bench``."""
    folder = draw_folders(Path(os.environ["FERSWEEP_CACHE"]) / "bench-images", train=max(IMAGES.values()), val=512)
    run(["data", "prepare", str(folder), "--name", DATA])
    return folder


def ours(model: str) -> float:
    """Images a second of ``fersweep train``, the median of three epochs."""
    folders()
    return _trained(model, epochs=3)["images_per_second"]


def plain(model: str, workers: int) -> float:
    """Images a second of the plain script with so many workers, the faster of its two epochs."""
    given = {"folder": folders(), "model": model, "train_samples": IMAGES[model], "epochs": 2, "workers": workers}
    words = [f"--{name}={value}" for name, value in given.items()]
    return float(json.loads(run(["tests.benchmarks.plain", *words, "--json"], program=PYTHON))["images_per_second"])


def accuracy(model: str, precision: str, seed: int) -> float:
    """Validation accuracy after a few epochs on a subset of FER2013."""
    subset()
    of_all = {"data": SUBSET, "train-samples": SUBSET_TRAIN, "epochs": 8}
    return _trained(model, precision=precision, seed=seed, **of_all, **LEARNT[model])["best_val_acc"]


def share_of_peak(model: str) -> float:
    """Per cent of this machine's peak that a training step of the model does its arithmetic at."""
    return float(json.loads(run(["tests.benchmarks.peak", f"--model={model}", "--json"], program=PYTHON))["share"])


def _trained(model: str, **fields: object) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        given = {"model": model, "data": DATA, "train-samples": IMAGES[model], "folder": f"{folder}/trial"} | fields
        words = ["train", *(f"--{name}={value}" for name, value in given.items()), "--json"]
        trained: dict[str, float] = json.loads(run(words))
        return trained


def _rows(model: str) -> Mapping[str, Row]:
    return {
        model: Row(
            f"{model}, training images/s",
            {"fersweep": lambda _: ours(model), **_plain_sides(model)},
            better="more",
            is_slow=model == "resnet18",
        ),
        f"same-{model}": Row(
            f"{model}, validation accuracy after 8 epochs on a subset of FER2013, a seed a repeat",
            {
                "bf16": lambda repeat: accuracy(model, "bf16", repeat),
                "fp32": lambda repeat: accuracy(model, "fp32", repeat),
            },
            better="same",
            is_slow=True,
        ),
        f"share-{model}": Row(
            f"{model}, a training step's share of the matrix peak, %",
            {"fersweep": lambda _: share_of_peak(model)},
            better="more",
            is_slow=True,
        ),
    }


def _plain_sides(model: str) -> Mapping[str, Measure]:
    cores = os.cpu_count() or 1
    return {
        f"the plain script, workers: {workers}": lambda _, workers=workers: plain(model, workers)
        for workers in sorted({min(WORKERS, cores), cores})
    }


ROWS: Mapping[str, Row] = {name: row for model in IMAGES for name, row in _rows(model).items()}
