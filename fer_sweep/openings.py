"""How often a test split was looked at: one line for every time, appended and never changed.

A test split answers one question once. Whoever looks, changes the model and looks again has chosen on it, and its
accuracy is no longer that of unseen faces. So every opening is written down before its result is shown: in the folder
of the sweep, in fersweep's home and in the cache of prepared data, which other homes share.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fer_sweep.errors import StorageError
from fer_sweep.files import cache_dir, home, parse_object

LOG = "tests.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """One look at a test split."""

    id: str
    """Of this look, the same in every file it is written to."""
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
    """Of the test images and their labels alone, whatever the rest of the data set and their order."""
    averaging: str
    images: int
    right: int
    again: bool
    """Whether the split had been opened before, and was opened again on demand."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.right / self.images

    @property
    def words(self) -> str:
        """The model and its accuracy."""
        return f"{self.model}, {100 * self.accuracy:.2f} % ({self.averaging})"


def openings_of(test_fingerprint: str) -> list[Opening]:
    """Every look at a test split that this home or the data cache knows of, earliest first.

    Raises:
        StorageError: A file that records them cannot be read.
    """
    return [opening for opening in all_openings() if opening.test_fingerprint == test_fingerprint]


def all_openings(*folders: Path) -> list[Opening]:
    """Every look at a test split that this home, the data cache or some folders know of, earliest first.

    Raises:
        StorageError: A file that records them cannot be read.
    """
    found: dict[str, Opening] = {}
    for folder in (home(), cache_dir(), *folders):
        for opening in _read(folder / LOG):
            found.setdefault(opening.id, opening)
    return sorted(found.values(), key=lambda opening: opening.opened)


def how_often(count: int) -> str:
    """How often a test split was opened, and what follows from that."""
    if count < 2:
        return "opened once" if count else "never opened, as far as is recorded here"
    return (
        f"opened {count} times, and recorded so: report all of them, since the best of several is not the accuracy on "
        "unseen faces"
    )


def openings_in(folder: Path) -> list[Opening]:
    """Every look at whatever test split that a sweep's folder tells of, in the order they were written down.

    Raises:
        StorageError: The file that records them cannot be read.
    """
    return list(_read(folder / LOG))


def write_down(opening: Opening, folder: Path) -> None:
    """Append a look to the files of a folder, of the home and of the data cache; on disk when this returns.

    Raises:
        StorageError: The folder or the home cannot be written. A cache that may only be read is passed over.
    """
    for place in dict.fromkeys((home(), folder)):
        try:
            _append(place / LOG, opening)
        except OSError as error:
            raise StorageError(
                f"cannot record in {place / LOG} that the test split was opened: {error.strerror or error}",
                hint="make room or make the folder writable, then run the same command again",
            ) from error
    try:
        _append(cache_dir() / LOG, opening)
    except OSError as error:
        _log.warning("other homes will not know of this: %s cannot be written (%s)", cache_dir() / LOG, error)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold off other processes of this home that would open a test split, until this one is done.

    Raises:
        StorageError: The home cannot be written.
    """
    import fcntl  # only here: Windows has none

    try:
        home().mkdir(parents=True, exist_ok=True)
        stream = (home() / ".tests.lock").open("w")
    except OSError as error:
        raise StorageError(f"cannot write {home()}: {error.strerror}", hint="make the folder writable") from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _append(path: Path, opening: Opening) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # a line that a crash cut off stays by itself
                stream.write(b"\n")
        stream.write(json.dumps(asdict(opening)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _read(path: Path) -> Iterator[Opening]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path} cannot be read, and with it how often the test split was opened: {error}",
            hint="make it readable",
        ) from error
    names = {field.name for field in fields(Opening)}
    for number, line in enumerate(lines, 1):
        try:
            values = parse_object(line.encode())
            yield Opening(**{name: values[name] for name in names})
        except (ValueError, TypeError, KeyError):
            _log.warning("%s, line %d is no record of an opening and is passed over", path, number)
