"""The images that benchmarks train on: FER2013's where its archive is, drawn ones anywhere."""

import functools
import os
import zipfile
from pathlib import Path

from fer_sweep.data.dataset import Split
from fer_sweep.data.synthetic import draw_dataset
from fer_sweep.errors import DataError
from tests.benchmarks.commands import REPOSITORY, run
from tests.support.faces import Faces, write_folder

SUBSET, SUBSET_TRAIN, SUBSET_VAL = "fer2013-subset", 4096, 1024
"""A part of FER2013 as a data set, and how many images of each split it has."""


def extract_subset(folder: Path, *, train: int, val: int, start: float = 0.0) -> Path:
    """Unpack about so many evenly spaced images of FER2013's training and PublicTest as image folders.

    The first image is ``start`` spacings from the first of each split, 0 <= start < 1.

    The Kaggle archive is FERSWEEP_FER2013_ZIP, or ``shared/data/fer2013.zip`` beside the checkout.
    """
    path = Path(os.environ.get("FERSWEEP_FER2013_ZIP") or REPOSITORY.parent / "shared" / "data" / "fer2013.zip")
    if not path.is_file():
        raise DataError(f"no FER2013 archive at {path}", hint="set FERSWEEP_FER2013_ZIP to the Kaggle zip of folders")
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())
        for split, usage, wanted in (("train", "/Training_", train), ("test", "/PublicTest_", val)):
            ours = [name for name in names if name.startswith(f"{split}/") and usage in name]
            wanted = min(wanted, len(ours))
            chosen = [ours[int((number + start) * len(ours) / wanted)] for number in range(wanted)]
            write_folder(folder, {name: archive.read(name) for name in chosen})
    return folder


@functools.cache
def subset() -> Path:
    """The folders of SUBSET, once it is also prepared under its name."""
    folder = extract_subset(Path(os.environ["FERSWEEP_CACHE"]) / SUBSET, train=SUBSET_TRAIN, val=SUBSET_VAL)
    run(["data", "prepare", str(folder), "--name", SUBSET])
    return folder


def draw_folders(folder: Path, *, train: int, val: int) -> Path:
    """Draw faces into the same folders, as JPEG files like FER2013's."""
    faces = Faces(*draw_dataset(0, {Split.TRAIN: train, Split.VAL: val}))
    return write_folder(folder, faces.files(name="{usage}_{number}.jpg", kind="JPEG", quality=95))
