"""Where fersweep's files are, and how they are written: atomically.

A folder's name is a sweep's or a trial's id, which may come from a server: one that cannot name a folder is an
InputError. What writes raises StorageError if the disk is full or the folder cannot be written; the target is then as
it was.
"""

import contextlib
import errno
import glob
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fer_sweep.errors import InputError, cannot_write

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, WEIGHTS = "last.ckpt", "previous.ckpt", "best.safetensors"
"""A trial's newest checkpoint, the one before it, and the weights of its best epoch."""
RESULT = "result.json"
"""The result of a trial that has ended."""


def home() -> Path:
    """The folder of sweeps and trials: ``FERSWEEP_HOME``, or ``.fersweep`` in the working directory."""
    return _given("FERSWEEP_HOME") or Path(".fersweep").absolute()


def cache_dir() -> Path:
    """The folder of prepared data: ``FERSWEEP_CACHE``, or fersweep's part of the user's cache folder."""
    if given := _given("FERSWEEP_CACHE"):
        return given
    from platformdirs import user_cache_path  # only here: commands that need no data start faster

    with contextlib.suppress(RuntimeError):  # there is no home; older platformdirs give ~ itself
        if (usual := user_cache_path("fersweep", appauthor=False)).is_absolute():
            return usual
    raise _homeless("FERSWEEP_CACHE")


def data_folder() -> Path:
    """The folder of all prepared data sets."""
    return cache_dir() / "data"


def sweep_folder(sweep_id: str) -> Path:
    """The folder of one sweep: its sweep.yaml and its trials."""
    return home() / "sweeps" / _folder_name(sweep_id)


def trial_folder(sweep_id: str, trial_id: str) -> Path:
    """The folder of one trial: config.json, history.jsonl, checkpoints, result.json, trial.log."""
    return sweep_folder(sweep_id) / "trials" / _folder_name(trial_id)


def checkpoint_folder(sweep_id: str, trial_id: str) -> Path:
    """The folder of a trial's checkpoints while it trains: its own, or one below ``FERSWEEP_CHECKPOINTS``."""
    given = _given("FERSWEEP_CHECKPOINTS")
    if not given:
        return trial_folder(sweep_id, trial_id)
    return given / _folder_name(sweep_id) / _folder_name(trial_id)


def can_be_resumed(sweep_id: str, trial_id: str) -> bool:
    """Whether this host can read a trial's checkpoints; it can if they are in the home, which all hosts share."""
    folder, own = checkpoint_folder(sweep_id, trial_id), trial_folder(sweep_id, trial_id)
    try:
        return folder == own or folder.is_dir() or (own / LAST_CHECKPOINT).is_file()
    except OSError:
        return False  # saving a trial there reports the error


def has_checkpoint(sweep_id: str, trial_id: str) -> bool:
    """Whether this host can read a checkpoint of a trial."""
    folders = checkpoint_folder(sweep_id, trial_id), trial_folder(sweep_id, trial_id)
    try:
        return any((folder / LAST_CHECKPOINT).is_file() for folder in folders)
    except OSError:
        return False


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints in a folder; they need not be there."""
    for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT):
        (folder / name).unlink(missing_ok=True)


def _given(variable: str) -> Path | None:
    """The folder that a variable names."""
    try:
        return Path(text).expanduser().absolute() if (text := os.environ.get(variable)) else None
    except RuntimeError:
        raise _homeless(variable) from None


def _homeless(variable: str) -> InputError:
    return InputError(
        "this user has no home folder: HOME is not set, and the system knows none",
        hint=f"set {variable} to the absolute path of a folder that can be written",
    )


def _folder_name(text: str) -> str:
    if not _ID.fullmatch(text):
        raise InputError(f"invalid id {text[:200]!r}", hint="ids are letters, digits, '_', '.' and '-'")
    return text


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises OSError or ValueError."""
    return parse_object(path.read_bytes())


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object in some bytes; raises ValueError if they are no JSON object."""
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in an optional file; empty if it is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def copy_trial(source: Path, target: Path) -> None:
    """Copy the files of a finished trial into a new trial of the same configuration, as far as they still exist."""
    names = [name for name in ("config.json", "history.jsonl", WEIGHTS) if (source / name).is_file()]
    if (target / "config.json").exists() or not (source / RESULT).is_file() or "config.json" not in names:
        return
    for name in [*names, RESULT]:  # the result last: it marks the training as finished
        with atomic_path(target / name) as temporary:
            shutil.copyfile(source / name, temporary)


def is_locked(lock: Path) -> bool:
    """Whether another process holds a lock file."""
    if sys.platform == "win32":
        from filelock import FileLock, Timeout  # only here: commands that lock nothing start faster

        if not lock.exists():
            return False
        try:
            with FileLock(lock, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False
    else:
        import fcntl  # does not exist on Windows

        try:
            with lock.open() as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not see each other
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def drop_unwritten(stream: IO[str]) -> None:
    """Drop what a stream could not write: every later flush, such as before a process starts or at exit, would fail."""
    with contextlib.suppress(OSError):  # it has no file
        number = stream.fileno()
        kept, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, number)
            stream.flush()
        finally:
            os.dup2(kept, number)  # a disk may have room again later
            os.close(kept)
            os.close(nowhere)


@contextlib.contextmanager
def atomic_path(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give a temporary path that becomes ``target``, synced to disk, if the block succeeds.

    Unless ``replace``, a file that exists by then stays.
    """
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp, whose files only their owner can read: a lab shares its cache as its umask allows.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _sync_file(temporary)
        if replace:
            temporary.replace(target)
        else:
            _put_unless_there(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_atomically(target: Path, content: str | bytes) -> None:
    """Replace the content of a file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_first(target: Path, content: str) -> None:
    """Write a file atomically unless it exists."""
    with atomic_path(target, replace=False) as temporary:
        temporary.write_bytes(content.encode())


def _put_unless_there(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)  # unlike a rename, it never replaces a file
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        temporary.replace(target)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``target``, synced to disk, if the block succeeds.

    Raises:
        InputError: ``target`` exists.
    """
    taken = InputError(f"{target} exists already", hint="give a new folder, or remove this one first")
    if target.exists() or target.is_symlink():
        raise taken
    try:
        with folder_beside(target) as temporary:
            yield temporary
            for path in temporary.rglob("*"):
                _sync_file(path)
            _sync_folder(temporary)
            temporary.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise taken from error  # created meanwhile
        raise cannot_write(target, error) from error


@contextlib.contextmanager
def folder_beside(target: Path, purpose: str = "") -> Iterator[Path]:
    """Give a temporary folder beside ``target``, removed at the end; those that killed processes left are removed too.

    Raises OSError. A lock tells them from folders in use, so where there are no locks they stay.
    """
    beginning = f".{target.name}.{purpose}"
    for left in target.parent.glob(f"{glob.escape(beginning)}*/"):
        if re.fullmatch("[0-9a-f]{8}", left.name.removeprefix(beginning)) and (lock := _lock_folder(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    temporary = target.parent / f"{beginning}{secrets.token_hex(4)}"
    temporary.mkdir(parents=True)
    lock = _lock_folder(temporary)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock_folder(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed; None if another process has locked it, or nothing can."""
    if sys.platform == "win32":
        return None  # only files can be opened, and locked
    else:
        import fcntl  # does not exist on Windows

        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle


def _sync_file(path: Path) -> None:
    # Windows syncs only what is open for writing.
    with path.open("r+b" if sys.platform == "win32" else "rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once the folder is synced; some file systems do not support that.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
