"""A trial's folder belongs to one process at a time, and in the end to the attempt that the search has given it to."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fer_sweep import owners
from fer_sweep.errors import FersweepError, cannot_write

_WAIT_S = 10.0


class FolderInUse(FersweepError):
    """Another process trains in the folder, most likely a predecessor that has not quite ended."""


@contextlib.contextmanager
def folder_to_itself(folder: Path, attempt: int) -> Iterator[None]:
    """Hold the trial's folder; an earlier attempt that still holds it is ended first.

    Raises:
        FolderInUse: It is held by a process that is not to be ended, or cannot be from here.
        StorageError: The folder cannot be written.
    """
    try:
        stream = (folder / ".lock").open("a+")
    except OSError as error:
        raise cannot_write(folder, error) from error
    with stream:
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                # The kernel drops the lock with the process, so a killed predecessor never leaves it behind.
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _end_earlier_attempt(stream, attempt)
                if time.monotonic() > deadline:
                    raise FolderInUse(f"another process trains in {folder}", hint="end it first") from None
                time.sleep(0.05)
        with contextlib.suppress(OSError):  # a full disk: then nobody can end this one from here, that is all
            stream.truncate(0)
            stream.write(f"{attempt} {owners.this_process()}")
            stream.flush()
        yield


def _end_earlier_attempt(lock: IO[str], attempt: int) -> None:
    """The search has given the trial to this attempt. A former one, whose agent was paused, say, has lost it."""
    lock.seek(0)
    number, _, owner = lock.read().partition(" ")
    if number.isdecimal() and 0 < int(number) < attempt:
        owners.kill(owner)
