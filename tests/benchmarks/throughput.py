"""Training images a second: against the plain script, over slots, as a share of the machine's peak, bf16 against fp32.

Both train on the same drawn faces, stored as JPEG files as FER2013 is; the plain script reads the files, fersweep what
``data prepare`` made of them. Default sizes of every architecture, batch 128, ``precision: auto``; a GPU is used where
there is one. The plain script has a DataLoader worker a core, and where there are more than ``WORKERS`` cores it is
measured with that many too.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from fer_sweep.agent.probe import measure
from fer_sweep.config.trial import parse_trial
from fer_sweep.worker.slots import discover, make_slots, usable_cores
from fer_sweep.worker.starters import starter_for
from tests.benchmarks.commands import run
from tests.benchmarks.faces import SUBSET, SUBSET_TRAIN, draw_folders, subset
from tests.benchmarks.rows import Row

ON_CPU = {"simple_cnn": 4096, "deeper_cnn": 2048, "resnet18": 640, "vit": 2048}
IMAGES = dict.fromkeys(ON_CPU, 28_672) if discover() else ON_CPU
"""Training images an epoch: enough steps to be steady, few enough to be quick; on a GPU as many as FER2013 has."""
CORES, WORKERS = os.cpu_count() or 1, 4
"""Of 55 public training scripts for FER2013 in PyTorch (2026), 28 load in the training process itself, 25 with one to
four workers, two with more, and none with as many as there are cores."""
MOST_SLOTS = 8 if discover() else min(8, usable_cores())


@functools.cache
def folders() -> Path:
    """Drawn faces as image folders, also prepared as the data set ``bench``."""
    folder = draw_folders(Path(os.environ["FERSWEEP_CACHE"]) / "bench-images", train=max(IMAGES.values()), val=512)
    run(["data", "prepare", str(folder), "--name", "bench"])
    return folder


def ours(model: str, **variables: str) -> float:
    """Images a second of ``fersweep train``, the median of three epochs."""
    folders()
    fields = {"data": "bench", "train_samples": IMAGES[model], "epochs": 3}
    return _trained(model, variables, **fields)["images_per_second"]


def beside(model: str, **variables: str) -> float:
    """The same with a process that keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            return ours(model, **variables)
        finally:
            busy.kill()


def plain(model: str, workers: int) -> float:
    """Images a second of the plain script with so many workers, the faster of its two epochs."""
    given = {"folder": folders(), "train_samples": IMAGES[model], "epochs": 2, "workers": workers}
    return _module("plain", model=model, **given)["images_per_second"]


def of_slots(model: str, slots: int) -> float:
    """Images a second of so many slots of one device together, as ``--slots auto`` measures it."""
    folders()
    gpus, config = discover()[:1], parse_trial({"model": model, "data": "bench"})
    places = make_slots(gpus, per_gpu=slots) if gpus else make_slots((), cpu_slots=slots)
    with closing(starter_for(places)) as starter:
        starter.warm_up(places[0])
        return measure(config, lambda _: places, 1, starter)[0].images_per_second


def accuracy(model: str, precision: str, seed: int) -> float:
    """Validation accuracy after eight epochs on a subset of FER2013, in which each model learns something."""
    subset()
    # At its full width of 64 a seed of ResNet18 would take half an hour in fp32.
    own = {"deeper_cnn": {"lr": 3e-3}, "resnet18": {"lr": 1e-3, "width": 16}}.get(model, {"lr": 1e-3})
    given = {"data": SUBSET, "train_samples": SUBSET_TRAIN, "epochs": 8, "precision": precision, "seed": seed}
    return _trained(model, {}, **given, **own)["best_val_acc"]


def _trained(model: str, variables: Mapping[str, str], **fields: object) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
        done = run(["train", f"--model={model}", *options, f"--folder={folder}/trial", "--json"], **variables)
        return json.loads(done.stdout)


def _module(name: str, **given: object) -> dict[str, float]:
    words = [f"tests.benchmarks.{name}", *(f"--{option}={value}" for option, value in given.items())]
    return json.loads(run(words, [sys.executable, "-m"]).stdout)


ROWS = {}
for model in IMAGES:
    sides = {"fersweep": lambda _, model=model: ours(model)}
    for workers in sorted({min(WORKERS, CORES), CORES}):
        side = f"the plain script, workers: {workers}"
        sides[side] = lambda _, model=model, workers=workers: plain(model, workers)
    ROWS[model] = Row(f"{model}, training images/s", sides, "more", is_slow=model == "resnet18")
    title = f"{model}, validation accuracy after 8 epochs on a subset of FER2013, a seed a repeat"
    sides = {kind: lambda repeat, model=model, kind=kind: accuracy(model, kind, repeat) for kind in ("bf16", "fp32")}
    ROWS[f"same-{model}"] = Row(title, sides, "same", is_slow=True)
    title = f"{model}, a training step's share of the matrix peak, %"
    sides = {"fersweep": lambda _, model=model: _module("peak", model=model)["share"]}
    ROWS[f"share-{model}"] = Row(title, sides, "more", is_slow=True)
for model in ("simple_cnn", "deeper_cnn"):
    for slots in (2**power for power in range(1, MOST_SLOTS.bit_length())):
        title = f"{model}, {slots} slots on one device together, training images/s"
        sides = {
            "fersweep": lambda _, model=model, slots=slots: of_slots(model, slots),
            "one slot": lambda _, model=model: of_slots(model, 1),
        }
        ROWS[f"slots-{model}-{slots}"] = Row(title, sides, "more")
    ROWS[f"busy-{model}"] = Row(
        f"{model}, training images/s beside a process that keeps one core busy",
        {
            "fersweep": lambda _, model=model: beside(model),
            "with OpenMP's own waiting": lambda _, model=model: beside(model, GOMP_SPINCOUNT="300000"),
            "alone": lambda _, model=model: ours(model),
            "alone, with OpenMP's own waiting": lambda _, model=model: ours(model, GOMP_SPINCOUNT="300000"),
        },
        "more",
    )
