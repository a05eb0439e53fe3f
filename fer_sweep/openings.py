"""The record of opened test splits: one line per opening, appended and never changed.

A model that is changed after a look at the test split is selected on it, and its test accuracy is no longer that of
unseen faces. So every opening is recorded before its result is shown: in the folder of the sweep, in fersweep's home
and in the cache of prepared data, which other homes share.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from filelock import FileLock

from fer_sweep.errors import StorageError, cannot_write
from fer_sweep.files import cache_dir, home, parse_object

LOG = "tests.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """One opening of a test split."""

    id: str
    """The same in every file."""
    opened: float
    """Unix time, seconds."""
    model: str
    """The trial, as SWEEP/TRIAL, or its folder."""
    weights: str
    """SHA-256 of best.safetensors, in hexadecimal."""
    data: str
    """Name of the data set."""
    fingerprint: str
    """Of the whole data set."""
    test_fingerprint: str
    """Of the test images and their labels alone, independent of their order."""
    averaging: str
    images: int
    right: int
    again: bool
    """Whether the split had been opened before."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.right / self.images

    @property
    def words(self) -> str:
        """The model and its accuracy."""
        return f"{self.model}, {100 * self.accuracy:.2f} %" + (f" ({self.averaging})" if self.is_averaged else "")

    @property
    def is_averaged(self) -> bool:
        """Whether predictions were averaged over several views of a face."""
        return self.averaging != "none"


def openings_of(test_fingerprint: str) -> list[Opening]:
    """Every recorded opening of a test split in this home and the data cache, earliest first."""
    return [opening for opening in all_openings() if opening.test_fingerprint == test_fingerprint]


def all_openings(*folders: Path) -> list[Opening]:
    """Every recorded opening of a test split in this home, the data cache and some folders, earliest first.

    Raises:
        StorageError: A file that records them cannot be read.
    """
    found: dict[str, Opening] = {}
    for folder in (home(), cache_dir(), *folders):
        for opening in openings_in(folder):
            found.setdefault(opening.id, opening)
    return sorted(found.values(), key=lambda opening: opening.opened)


def how_often(count: int) -> str:
    """How often a test split was opened, and what that means."""
    if count < 2:
        return "opened once" if count else "never opened, according to the records on this host"
    return f"opened {count} times: report all of them, since the best of several is not the accuracy on unseen faces"


def openings_in(folder: Path) -> list[Opening]:
    """Every opening recorded in a folder, in the order of the file.

    Raises:
        StorageError: The file that records them cannot be read.
    """
    path, found = folder / LOG, []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        message = f"cannot read {path}, the record of opened test splits: {error}"
        raise StorageError(message, hint="make the file readable") from error
    for number, line in enumerate(lines, 1):
        try:
            values = parse_object(line.encode())
            found.append(Opening(**{field.name: values[field.name] for field in fields(Opening)}))
        except (ValueError, TypeError, KeyError):
            _log.warning("%s, line %d: not a record of an opening; skipped", path, number)
    return found


def write_down(opening: Opening, folder: Path) -> None:
    """Append an opening to the records of a folder, the home and the data cache, synced to disk.

    Raises:
        StorageError: The folder or the home cannot be written. A read-only cache is skipped.
    """
    for place in dict.fromkeys((home(), folder)):
        try:
            _append(place / LOG, opening)
        except OSError as error:
            raise cannot_write(f"the record of opened test splits, {place / LOG}", error) from error
    try:
        _append(cache_dir() / LOG, opening)
    except OSError as error:
        _log.warning("the opening is not recorded for other homes: cannot write %s (%s)", cache_dir() / LOG, error)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Exclude other processes of this home from opening a test split meanwhile.

    Raises:
        StorageError: The home cannot be written.
    """
    try:
        home().mkdir(parents=True, exist_ok=True)
        lock = FileLock(home() / ".tests.lock").acquire()
    except OSError as error:
        raise cannot_write(home(), error) from error
    with lock:
        yield


def _append(path: Path, opening: Opening) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # keep a line that a crash truncated apart
                stream.write(b"\n")
        stream.write(json.dumps(asdict(opening)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
