"""Where fersweep's files lie, and how they are written: whole or not at all."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fer_sweep.errors import StorageError


def home() -> Path:
    """The folder of sweeps and trials: ``FERSWEEP_HOME``, or ``.fersweep`` in the working directory."""
    return Path(os.environ.get("FERSWEEP_HOME") or ".fersweep").expanduser().absolute()


def cache_dir() -> Path:
    """The folder of prepared data: ``FERSWEEP_CACHE``, or fersweep's part of the user's cache folder."""
    if given := os.environ.get("FERSWEEP_CACHE"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path  # only here: the commands that touch no data need not pay for it

    return user_cache_path("fersweep", appauthor=False)


def sweep_folder(sweep_id: str) -> Path:
    """The folder of one sweep: its sweep.yaml and its trials."""
    return home() / "sweeps" / sweep_id


def trial_folder(sweep_id: str, trial_id: str) -> Path:
    """The folder of one trial: config.json, history.jsonl, checkpoints, result.json, trial.log."""
    return sweep_folder(sweep_id) / "trials" / trial_id


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that only remembers something: empty if it is missing, spoilt or no object."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def copy_trial(source: Path, target: Path) -> None:
    """Give a new trial the files of one of the same configuration that has ended: its result is theirs.

    Done as far as the files are still there; what is missing is trained again.
    """
    names = [name for name in ("config.json", "history.jsonl", "best.safetensors") if (source / name).is_file()]
    if (target / "config.json").exists() or not (source / "result.json").is_file() or "config.json" not in names:
        return
    for name in [*names, "result.json"]:  # the result last: it is what says that the training is over
        with atomic_path(target / name) as temporary:
            shutil.copyfile(source / name, temporary)


def is_locked(lock: Path) -> bool:
    """Whether another process holds a lock file, such as that of a folder it trains in."""
    import fcntl  # only here: Windows has none

    try:
        with lock.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that takes its place, synced to disk, if the block ends well.

    Raises:
        StorageError: The disk is full or the folder cannot be written; ``target`` is as it was.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        # Not mkstemp, whose files only their owner can read: a lab shares its cache, as far as its umask says.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(target: Path, content: str | bytes) -> None:
    """Replace a file by new content so that a reader, or a crash, sees the old one or the new one.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    with atomic_path(target) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is; a file system without that call has no more to give.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(target: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {target}: {error.strerror or error}",
        hint="make room or make the folder writable, then run the same command again",
    )
