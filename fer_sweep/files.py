"""Where fersweep's files lie, and how they are written: whole or not at all."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fer_sweep.errors import InputError, cannot_write

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
LAST_CHECKPOINT = "last.ckpt"
"""The newest one of a trial."""
LARGEST_JSON = 4 << 20
"""Bytes of one of our JSON files: a configuration, a result, a note of what was measured. Most have under 2,000."""


def home() -> Path:
    """The folder of sweeps and trials: ``FERSWEEP_HOME``, or ``.fersweep`` in the working directory."""
    return Path(os.environ.get("FERSWEEP_HOME") or ".fersweep").expanduser().absolute()


def cache_dir() -> Path:
    """The folder of prepared data: ``FERSWEEP_CACHE``, or fersweep's part of the user's cache folder."""
    if given := os.environ.get("FERSWEEP_CACHE"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path  # only here: the commands that touch no data need not pay for it

    return user_cache_path("fersweep", appauthor=False)


def data_folder() -> Path:
    """The folder of all prepared data sets."""
    return cache_dir() / "data"


def sweep_folder(sweep_id: str) -> Path:
    """The folder of one sweep: its sweep.yaml and its trials.

    Raises:
        InputError: The id, which a server may have given, is not one that can name a folder.
    """
    return home() / "sweeps" / _folder_name(sweep_id)


def trial_folder(sweep_id: str, trial_id: str) -> Path:
    """The folder of one trial: config.json, history.jsonl, checkpoints, result.json, trial.log.

    Raises:
        InputError: An id is not one that can name a folder.
    """
    return sweep_folder(sweep_id) / "trials" / _folder_name(trial_id)


def checkpoint_folder(sweep_id: str, trial_id: str) -> Path:
    """Where a trial is saved while it trains: its own folder, or one below ``FERSWEEP_CHECKPOINTS``.

    Raises:
        InputError: An id is not one that can name a folder.
    """
    given = os.environ.get("FERSWEEP_CHECKPOINTS")
    if not given:
        return trial_folder(sweep_id, trial_id)
    return Path(given).expanduser().absolute() / _folder_name(sweep_id) / _folder_name(trial_id)


def can_be_resumed(sweep_id: str, trial_id: str) -> bool:
    """Whether this host sees what a trial was saved in; in the home, which all hosts of a sweep share, it does."""
    folder, own = checkpoint_folder(sweep_id, trial_id), trial_folder(sweep_id, trial_id)
    try:
        return folder == own or folder.is_dir() or (own / LAST_CHECKPOINT).is_file()
    except OSError:
        return False  # that it cannot be written either is said when a trial is to be saved there


def _folder_name(text: str) -> str:
    if not _ID.fullmatch(text):
        raise InputError(f"{text[:200]!r} cannot be an id here", hint="ids are letters, digits, '_', '.' and '-'")
    return text


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a small file.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds something else, or more than LARGEST_JSON.
    """
    with path.open("rb") as stream:
        content = stream.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"it is larger than {LARGEST_JSON >> 20} MiB")
    return parse_object(content)


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object in some bytes.

    Raises:
        ValueError: They hold something else.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that only remembers something: empty if it is missing, spoilt or no object."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


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
    with _put_in_place(target, Path.replace) as temporary:
        yield temporary


@contextlib.contextmanager
def _put_in_place(target: Path, put: Callable[[Path, Path], object]) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        # Not mkstemp, whose files only their owner can read: a lab shares its cache, as far as its umask says.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        put(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(target: Path, content: str | bytes) -> None:
    """Replace a file by new content so that a reader, or a crash, sees the old one or the new one.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    with atomic_path(target) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_first(target: Path, content: str) -> None:
    """Write a file, whole or not at all, unless there is one: then that one stays.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    with _put_in_place(target, _put_unless_there) as temporary:
        temporary.write_text(content)


def _put_unless_there(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)  # unlike a rename, it replaces nothing
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        temporary.replace(target)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target`` that becomes it, synced to disk, if the block ends well.

    Raises:
        InputError: There is something at ``target`` already.
        StorageError: The disk is full or the folder cannot be written; there is nothing at ``target``.
    """
    taken = InputError(f"{target} exists already", hint="give a folder that does not, or remove this one first")
    if target.exists() or target.is_symlink():
        raise taken
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield temporary
        for path in temporary.rglob("*"):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        _sync_folder(temporary)
        if target.exists():  # made meanwhile: a rename would replace it if it is empty
            raise taken
        try:
            temporary.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise taken from error  # made since that look
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is; a file system without that call has no more to give.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
