"""The sweep files and pool files that come with fersweep: found by name, and copied by ``fersweep init``."""

import shutil
from pathlib import Path
from typing import Literal

from fer_sweep.errors import InputError, writing

Kind = Literal["sweeps", "agents"]


def shipped_folder(kind: Kind) -> Path:
    """The folder of a kind: package data in a wheel, the repository's own folder in an editable install."""
    package = Path(__file__).parent
    packaged = package / "shipped_files" / kind
    return packaged if packaged.is_dir() else package.parent / kind


def resolve(kind: Kind, given: Path) -> Path:
    """The file that is meant: one of the working directory if there is one, else a shipped one, else ``given``.

    Args:
        kind: What the file describes.
        given: A path; or a bare name such as ``simple_cnn``, which means ``simple_cnn.yaml``,
            ``sweeps/simple_cnn.yaml`` or the shipped file. ``sweeps/simple_cnn.yaml`` means the shipped file, too,
            where the working directory has none.
    """
    candidates = [given]
    name = given.name
    if is_bare := given.parent == Path() and not given.suffix:
        name += ".yaml"
        candidates += [Path(name), Path(kind) / name]
    if is_bare or given.parent == Path(kind):
        candidates.append(shipped_folder(kind) / name)
    return next((path for path in candidates if path.is_file()), given)


def copy_shipped(target: Path) -> list[Path]:
    """Copy the shipped sweep files and pool files into a folder, to edit them there; returns the two new folders.

    Raises:
        InputError: The folder has one of them already; nothing is copied.
        StorageError: They cannot be written.
    """
    kinds: tuple[Kind, ...] = ("sweeps", "agents")
    folders = {kind: target / kind for kind in kinds}
    if present := [str(folder) for folder in folders.values() if folder.exists()]:
        hint = "rename it, or run fersweep init in another folder"
        raise InputError(f"already here: {', '.join(present)}", hint=hint)
    for kind, folder in folders.items():
        with writing(folder):
            shutil.copytree(shipped_folder(kind), folder)
    return list(folders.values())
