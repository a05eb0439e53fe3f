"""Which home a mirror is the copy of: nobody else may write to it.

A home that is restored gets a new name and writes it into the mirror. So the machine that was thought gone, if it is
not, stops copying over what its successor does; and a new home that was not restored cannot replace the mirror of a
former one by its own emptiness.
"""

import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from fer_sweep.errors import InputError, NothingToDo, StorageError
from fer_sweep.files import home, read_json, read_object, write_atomically

MARK = "mirror.json"
"""Lies in the mirror."""
NAME = "home.json"
"""Lies in the home."""
DATABASE = "sweeps.db"


@dataclass(frozen=True)
class Mark:
    """Whose copy a mirror is."""

    home: str
    """The name of the home."""
    copied: float
    """When it was last copied whole: Unix time, seconds; 0 for never."""


def home_name() -> str:
    """The name of this home, given to it the first time.

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
    """A name that no other home has."""
    return secrets.token_hex(8)


def write_home_name(folder: Path, name: str, *, restored_from: str | None = None) -> None:
    """Name a home, and remember which one it was restored from."""
    write_atomically(folder / NAME, json.dumps({"name": name, "restored_from": restored_from}) + "\n")


def read_mark(folder: Path) -> Mark:
    """The mark of a mirror.

    Raises:
        NothingToDo: The folder is not there, or no mirror.
        StorageError: The mark cannot be read.
    """
    path = folder / MARK
    try:
        found = read_json(path)
        return Mark(str(found["home"]), float(found["copied"]))
    except FileNotFoundError:
        raise NothingToDo(
            f"no mirror in {folder}", hint="mount the drive, or give the folder that `--mirror` was given"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} cannot be read: {error}", hint="is the drive mounted and whole?") from error


def write_mark(folder: Path, *, copied: float = 0.0, home: str) -> None:
    """Make a mirror that of a home.

    Raises:
        StorageError: The drive is full, unmounted or read-only.
    """
    write_atomically(folder / MARK, json.dumps(asdict(Mark(home, copied))) + "\n")


def is_own(mark: Mark) -> bool:
    """Whether a mirror is this home's, or that of the home which this one was restored from."""
    return mark.home in (home_name(), read_object(home() / NAME).get("restored_from"))


def check_mirror(folder: Path) -> None:
    """See that this home may be copied to a folder, which is made if only it is missing.

    Raises:
        InputError: It may not: the drive is not mounted, the folder is something else or another home's mirror.
    """
    here = home()
    place = folder.resolve()
    if place.is_relative_to(here.resolve()) or here.resolve().is_relative_to(place):
        raise InputError(f"--mirror {folder}: one of it and {here} lies in the other", hint="give a folder elsewhere")
    # Only the last folder is made: below a drive that is not mounted, all of it would be on this machine's own disk.
    if not place.parent.is_dir():
        raise InputError(
            f"--mirror {folder}: there is no folder {place.parent}", hint="mount the drive first, or make the folder"
        )
    if place.exists() and not place.is_dir():
        raise InputError(f"--mirror {folder}: is a file", hint="give a folder")
    try:
        place.mkdir(exist_ok=True)
        others = next((path.name for path in place.iterdir()), None)
    except OSError as error:
        raise InputError(f"--mirror {folder}: {error.strerror or error}", hint="give a folder to write to") from error
    if not (place / MARK).exists():
        if others is not None:
            hint = f"give a folder of its own, such as {folder / 'fersweep'}"
            raise InputError(f"--mirror {folder}: holds other files, such as {others}", hint=hint)
        return
    mark = read_mark(place)
    if not is_own(mark):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(mark.copied)) if mark.copied else "never whole"
        raise InputError(
            f"--mirror {folder}: is the mirror of another home (last copied: {when}), which this would replace",
            hint=f"go on from it: fersweep restore {folder}; or give another folder",
        )
