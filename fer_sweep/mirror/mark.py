"""The home that owns a mirror: no other home may write to it.

A restored home gets a new name and writes it into the mirror. So the former machine, if it still runs, stops copying
over the work of its successor, and a new empty home cannot overwrite the mirror of a former one.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fer_sweep.errors import InputError, NothingToDo, StorageError, cannot_write
from fer_sweep.files import home, read_json, read_object, write_atomically
from fer_sweep.store.sqlite import PREFIX

MARK = "mirror.json"
"""In the mirror."""
NAME = "home.json"
"""In the home."""
DATABASE = "sweeps.db"


@dataclass(frozen=True)
class Mark:
    """The owner of a mirror."""

    home: str
    """The name of the home."""
    copied: float = 0.0
    """When the last copy was completed: Unix time, seconds; 0 for never."""


def home_name() -> str:
    """The name of this home, generated at the first call."""
    return read_object(home() / NAME).get("name") or name_home(home())


def name_home(folder: Path, *, restored_from: str | None = None) -> str:
    """Give a home a new name, and record the name of the home it was restored from."""
    name = secrets.token_hex(8)
    write_atomically(folder / NAME, json.dumps({"name": name, "restored_from": restored_from}) + "\n")
    return name


def read_mark(folder: Path) -> Mark:
    """Read the mark of a mirror.

    Raises:
        NothingToDo: The folder does not exist, or is no mirror.
        StorageError: The mark cannot be read.
    """
    path = folder / MARK
    try:
        found = read_json(path)
        return Mark(str(found["home"]), float(found["copied"]))
    except FileNotFoundError:
        raise NothingToDo(f"no mirror in {folder}", hint="mount the drive, or give the folder of `--mirror`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} cannot be read: {error}", hint="check that the drive is mounted and intact"
        ) from error


def write_mark(folder: Path, mark: Mark) -> None:
    """Write the mark of a mirror; StorageError if the drive is full, unmounted or read-only."""
    write_atomically(folder / MARK, json.dumps(asdict(mark)) + "\n")


def is_own(mark: Mark) -> bool:
    """Whether this home, or the one it was restored from, owns a mirror."""
    return mark.home in (home_name(), read_object(home() / NAME).get("restored_from"))


def check_mirror(folder: Path, storage: str | None) -> None:
    """Check that a search can be mirrored to a folder; create the folder if its parent exists.

    Args:
        folder: The mirror.
        storage: The URL of the search's database; None for that of this home.

    Raises:
        InputError: The drive is not mounted, the folder has other content or is the mirror of another home, or the
            state or the checkpoints of the search are outside this home.
    """
    here = home()
    if place := os.environ.get("FERSWEEP_CHECKPOINTS"):
        raise InputError(
            f"--mirror copies {here}, but FERSWEEP_CHECKPOINTS puts checkpoints into {place}", hint="unset it"
        )
    if storage is not None and storage.startswith(PREFIX):
        raise InputError(
            f"--mirror copies {here}, but the state of this sweep is in {storage.removeprefix(PREFIX)}",
            hint="create the sweep without --storage",
        )
    target = folder.resolve()
    if target.is_relative_to(here.resolve()) or here.resolve().is_relative_to(target):
        raise InputError(
            f"--mirror {folder}: one of this folder and {here} contains the other", hint="give another folder"
        )
    # Parents are not created: below an unmounted drive they would be on this machine's own disk.
    if not target.parent.is_dir():
        raise InputError(
            f"--mirror {folder}: folder {target.parent} not found", hint="mount the drive first, or create the folder"
        )
    if target.exists() and not target.is_dir():
        raise InputError(f"--mirror {folder}: this is a file", hint="give a folder")
    try:
        target.mkdir(exist_ok=True)
        content = [path.name for path in target.iterdir()]
    except OSError as error:
        raise InputError(f"--mirror {folder}: {error.strerror or error}", hint="give a writable folder") from error
    if content and MARK not in content:
        raise InputError(
            f"--mirror {folder}: the folder contains other files, such as {content[0]}",
            hint=f"give an empty folder, such as {folder / 'fersweep'}",
        )
    if content and not is_own(mark := read_mark(target)):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(mark.copied)) if mark.copied else "never"
        raise InputError(
            f"--mirror {folder}: this is the mirror of another home (last copied: {when})",
            hint=f"continue its sweeps: fersweep restore {folder}; or give another folder",
        )


def folders(parent: Path) -> Iterator[Path]:
    """The folders in another one by name, without links and hidden ones."""
    if parent.is_dir():
        for path in sorted(parent.iterdir()):
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield path


def is_mirrored(path: Path) -> bool:
    """Whether a path is a file that is copied as it is: no link, no hidden file, no database, no name of a home."""
    is_own_file = path.name.startswith((".", DATABASE)) or path.name in (MARK, NAME)
    return path.is_file() and not path.is_symlink() and not is_own_file


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the errors of the file system into StorageError."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error
