"""The images that benchmarks train on: FER2013's where its archive is, drawn ones anywhere."""

import functools
import os
import zipfile
from pathlib import Path, PurePosixPath

from fer_sweep.data.dataset import Split
from fer_sweep.data.synthetic import draw_dataset
from fer_sweep.errors import DataError
from tests.benchmarks.commands import run
from tests.support.faces import Faces, write_folder

SUBSET, SUBSET_TRAIN, SUBSET_VAL = "fer2013-subset", 4096, 1024
"""A part of FER2013 as a data set, and how many images of each split it has."""

FOLDERS = {"train": "Training_", "test": "PublicTest_"}
"""By folder of the Kaggle layout, what its images' names begin with."""


def fer2013_zip() -> Path:
    """The Kaggle archive of image folders: FERSWEEP_FER2013_ZIP, or ``shared/data`` beside the checkout.

    Raises:
        DataError: It is not there.
    """
    given = os.environ.get("FERSWEEP_FER2013_ZIP")
    path = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data" / "fer2013.zip"
    if not path.is_file():
        raise DataError(f"no FER2013 archive at {path}", hint="set FERSWEEP_FER2013_ZIP to the Kaggle zip of folders")
    return path


def extract_subset(folder: Path, *, train: int, val: int) -> Path:
    """Unpack about so many evenly spaced images of FER2013's training and PublicTest as image folders."""
    with zipfile.ZipFile(fer2013_zip()) as archive:
        paths = [PurePosixPath(name) for name in sorted(archive.namelist())]
        for split, wanted in {"train": train, "test": val}.items():
            ours = [path for path in paths if path.parts[0] == split and path.name.startswith(FOLDERS[split])]
            for number in range(min(wanted, len(ours))):
                path = ours[number * len(ours) // min(wanted, len(ours))]
                target = folder / split / path.parts[1] / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(str(path)))
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
