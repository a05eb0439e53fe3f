"""The home that owns a mirror: no other home may write to it.

A restored home gets a new name and writes it into the mirror. So the former machine, if it still runs, stops copying
over the work of its successor, and a new empty home cannot overwrite the mirror of a former one.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fer_sweep.errors import InputError, NothingToDo, StorageError, cannot_write
from fer_sweep.files import home, read_json, read_object, write_atomically

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
    copied: float
    """When the last copy was completed: Unix time, seconds; 0 for never."""


def home_name() -> str:
    """The name of this home, generated at the first call.

    Raises:
        StorageError: It cannot be written.
    """
    path = home() / NAME
    known = read_object(path).get("name")
    if isinstance(known, str) and known:
        return known
    name = new_name()
    write_home_name(home(), name)
    return name


def new_name() -> str:
    """Generate a unique name of a home."""
    return secrets.token_hex(8)


def write_home_name(folder: Path, name: str, *, restored_from: str | None = None) -> None:
    """Write the name of a home, and of the one it was restored from."""
    write_atomically(folder / NAME, json.dumps({"name": name, "restored_from": restored_from}) + "\n")


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


def write_mark(folder: Path, *, copied: float = 0.0, home: str) -> None:
    """Write the mark of a mirror.

    Raises:
        StorageError: The drive is full, unmounted or read-only.
    """
    write_atomically(folder / MARK, json.dumps(asdict(Mark(home, copied))) + "\n")


def is_own(mark: Mark) -> bool:
    """Whether this home, or the one it was restored from, owns a mirror."""
    return mark.home in (home_name(), read_object(home() / NAME).get("restored_from"))


def check_mirror(folder: Path) -> None:
    """Check that this home can be copied to a folder; create the folder if its parent exists.

    Raises:
        InputError: The drive is not mounted, or the folder has other content or is the mirror of another home.
    """
    here = home()
    place = folder.resolve()
    if place.is_relative_to(here.resolve()) or here.resolve().is_relative_to(place):
        raise InputError(
            f"--mirror {folder}: one of this folder and {here} contains the other", hint="give another folder"
        )
    # Parents are not created: below an unmounted drive they would be on this machine's own disk.
    if not place.parent.is_dir():
        raise InputError(
            f"--mirror {folder}: folder {place.parent} not found", hint="mount the drive first, or create the folder"
        )
    if place.exists() and not place.is_dir():
        raise InputError(f"--mirror {folder}: this is a file", hint="give a folder")
    try:
        place.mkdir(exist_ok=True)
        others = next((path.name for path in place.iterdir()), None)
    except OSError as error:
        raise InputError(f"--mirror {folder}: {error.strerror or error}", hint="give a writable folder") from error
    if not (place / MARK).exists():
        if others is not None:
            hint = f"give an empty folder, such as {folder / 'fersweep'}"
            raise InputError(f"--mirror {folder}: the folder contains other files, such as {others}", hint=hint)
        return
    mark = read_mark(place)
    if not is_own(mark):
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


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the errors of the file system into StorageError."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error
