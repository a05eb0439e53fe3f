"""Training images a second: against the plain script, over slots, as a share of the machine's peak, bf16 against fp32.

Both train on the same drawn faces, stored as JPEG files as FER2013 is; the plain script reads the files, fersweep what
``data prepare`` made of them. Default sizes of every architecture, batch 128, ``precision: auto``; a GPU is used where
there is one. The plain script has a DataLoader worker a core, and where there are more than ``WORKERS`` cores it is
measured with that many too.
"""

import functools
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from fer_sweep.agent.probe import measure
from fer_sweep.config.trial import parse_trial
from fer_sweep.worker.gpus import discover
from fer_sweep.worker.slots import make_slots, usable_cores
from fer_sweep.worker.starters import TrialStarter
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
MOST_SLOTS = 8 if discover() else min(8, usable_cores())
DATA = "bench"


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
    return _module("plain", **given)["images_per_second"]


def of_slots(model: str, slots: int) -> float:
    """Images a second of so many slots of one device together, as ``--slots auto`` measures it."""
    folders()
    gpus = discover()[:1]
    starter = TrialStarter()
    starter.warm_up()
    try:
        return measure(
            parse_trial({"model": model, "data": DATA}),
            lambda _: make_slots(gpus, per_gpu=slots) if gpus else make_slots((), cpu_slots=slots),
            1,
            starter,
        )[0].images_per_second
    finally:
        starter.close()


def accuracy(model: str, precision: str, seed: int) -> float:
    """Validation accuracy after a few epochs on a subset of FER2013."""
    subset()
    of_all = {"data": SUBSET, "train-samples": SUBSET_TRAIN, "epochs": 8}
    return _trained(model, precision=precision, seed=seed, **of_all, **LEARNT[model])["best_val_acc"]


def _trained(model: str, **fields: object) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        given = {"model": model, "data": DATA, "train-samples": IMAGES[model], "folder": f"{folder}/trial"} | fields
        trained: dict[str, float] = json.loads(run(["train", *_options(given), "--json"]))
        return trained


def _module(name: str, **given: object) -> dict[str, float]:
    words = [f"tests.benchmarks.{name}", *_options(given), "--json"]
    printed: dict[str, float] = json.loads(run(words, program=[sys.executable, "-m"]))
    return printed


def _options(given: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in given.items()]


def _plain_sides(model: str) -> Mapping[str, Measure]:
    cores = os.cpu_count() or 1
    return {
        f"the plain script, workers: {workers}": lambda _, workers=workers: plain(model, workers)
        for workers in sorted({min(WORKERS, cores), cores})
    }


def _rows(model: str) -> Iterator[tuple[str, Row]]:
    sides = {"fersweep": lambda _: ours(model), **_plain_sides(model)}
    yield model, Row(f"{model}, training images/s", sides, "more", is_slow=model == "resnet18")
    title = f"{model}, validation accuracy after 8 epochs on a subset of FER2013, a seed a repeat"
    both = {name: lambda repeat, name=name: accuracy(model, name, repeat) for name in ("bf16", "fp32")}
    yield f"same-{model}", Row(title, both, "same", is_slow=True)
    title = f"{model}, a training step's share of the matrix peak, %"
    yield f"share-{model}", Row(title, {"fersweep": lambda _: _module("peak", model=model)["share"]}, "more", True)


def _slots_row(model: str, slots: int) -> tuple[str, Row]:
    sides = {"fersweep": lambda _: of_slots(model, slots), "one slot": lambda _: of_slots(model, 1)}
    title = f"{model}, {slots} slots on one device together, training images/s"
    return f"slots-{model}-{slots}", Row(title, sides, "more")


ROWS: Mapping[str, Row] = dict(
    [
        *(row for model in IMAGES for row in _rows(model)),
        *(_slots_row(m, 2**p) for m in ("simple_cnn", "deeper_cnn") for p in range(1, MOST_SLOTS.bit_length())),
    ]
)
"""Slots as far as there are cores, or on a GPU."""
