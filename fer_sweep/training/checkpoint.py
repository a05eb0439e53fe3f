"""Checkpoints: whole or not at all, checked when read, and of this trial only.

``last.ckpt`` is the newest and ``previous.ckpt`` the one before it, which is gone on from when the newest is
damaged. A file is one line with a CRC-32, then what torch.save writes: a zip, uncompressed, whose members are the
storages and one pickle. Nothing but tensors and plain values is ever unpickled, and no more memory taken than the
file is long.
"""

import contextlib
import io
import logging
import pickletools
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import CheckpointError
from fer_sweep.files import LAST_CHECKPOINT, atomic_path

PREVIOUS = "previous.ckpt"
MAX_SHARE = 0.05
"""Of a training's time that may go into checkpoints at the ends of epochs."""

_MAGIC = b"fersweep-checkpoint-1"
_GLOBALS = re.compile(r"torch\._utils _rebuild_tensor_v2|torch [A-Za-z0-9]+Storage|collections OrderedDict")
"""All that tensors, numbers, text and collections of them need."""
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one trial's folder.

    Args:
        folder: The trial's folder.
        config: What is trained; a checkpoint of another configuration is refused.
        fingerprint: Of the data trained on; a checkpoint of other data is refused.
        apart: Where they go in place of the folder. What an agent before left in the folder is gone on with too, if
            there is nothing here.
        clock: Seconds, from any origin.
    """

    def __init__(
        self,
        folder: Path,
        config: TrialConfig,
        fingerprint: str,
        *,
        apart: Path | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._trial, self._folder = folder, apart or folder
        self._loaded_from = self._folder
        self._last, self._previous = self._folder / LAST_CHECKPOINT, self._folder / PREVIOUS
        self._config, self._fingerprint = config, fingerprint
        self._clock = clock
        self._cost = 0.0
        self._saved_at = clock()

    @property
    def _is_apart(self) -> bool:
        return self._folder != self._trial

    def due(self) -> bool:
        """Whether the end of an epoch should be saved: always, unless that took more than MAX_SHARE of the time."""
        return self._cost <= MAX_SHARE * (self._clock() - self._saved_at)

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` (tensors, numbers, strings, lists and dictionaries of them) as the newest checkpoint.

        Raises:
            StorageError: The disk is full or the folder cannot be written; what was saved before is still there.
        """
        began = self._clock()
        buffer = io.BytesIO()
        owner = {"config": self._config.model_dump_json(), "data": self._fingerprint}
        torch.save({"owner": owner, "state": state}, buffer)
        content = buffer.getbuffer()
        with atomic_path(self._last) as temporary:
            with temporary.open("wb") as stream:
                stream.write(b"%s %08x\n" % (_MAGIC, zlib.crc32(content)))
                stream.write(content)
            if self._last.exists():
                self._last.replace(self._previous)
        if self._is_apart:
            self._remove_from(self._trial)  # it is older, and the best weights there may be those of a later epoch
        self._saved_at = self._clock()
        self._cost = self._saved_at - began

    def load(self) -> dict[str, Any] | None:
        """The newest undamaged state, on the CPU, or None if there is none: then the training begins anew.

        Raises:
            CheckpointError: The checkpoint belongs to another configuration or to other data.
        """
        folders = dict.fromkeys((self._folder, self._trial))
        for path in (folder / name for folder in folders for name in (LAST_CHECKPOINT, PREVIOUS)):
            if not path.exists():
                continue
            try:
                owner, state = _read(path)
            except MemoryError:
                raise  # it may be whole: a checkpoint takes little more than its own length
            except Exception as error:  # over a file that is not ours torch and zipfile raise a dozen kinds
                _log.warning("%s cannot be read and is passed over: %s", path, error or type(error).__name__)
                continue
            self._refuse_others(path, owner)
            self._loaded_from = path.parent
            return state
        return None

    def keep(self, weights: Path) -> None:
        """Keep the best weights beside the checkpoints, for a host that sees these and not the trial's folder.

        Raises:
            StorageError: The disk is full or the folder cannot be written.
        """
        if self._is_apart and weights.is_file():
            with atomic_path(self._folder / weights.name) as temporary:
                shutil.copyfile(weights, temporary)

    def bring(self, weights: Path) -> None:
        """Put the best weights where they belong: those kept with the checkpoint that was loaded, if any.

        The ones that are there may be of a host that began the trial anew, and of another epoch.

        Raises:
            StorageError: The disk is full or the folder cannot be written.
        """
        kept = self._loaded_from / weights.name
        if kept != weights and kept.is_file():
            with atomic_path(weights) as temporary:
                shutil.copyfile(kept, temporary)

    def remove(self, weights: Path) -> None:
        """Delete the checkpoints of a finished trial, which nothing goes on from any more.

        Args:
            weights: The trial's best weights, which stay.
        """
        for folder in {self._folder, self._trial}:
            self._remove_from(folder)
        if self._is_apart:
            (self._folder / weights.name).unlink(missing_ok=True)
            for folder in (self._folder, self._folder.parent):  # the trial's and, after its last one, the sweep's
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _remove_from(self, folder: Path) -> None:
        for name in (LAST_CHECKPOINT, PREVIOUS):
            (folder / name).unlink(missing_ok=True)

    def _refuse_others(self, path: Path, owner: dict[str, str]) -> None:
        if not self._is_own_config(owner["config"]):
            difference = "another configuration"
        elif owner["data"] != self._fingerprint:
            difference = "another content of the data set"
        else:
            return
        raise CheckpointError(
            f"{path} was written by a training with {difference}",
            hint="train into another folder, or delete this one to begin anew",
        )

    def _is_own_config(self, text: str) -> bool:
        # Parsed models are compared, since the text of an earlier version lacks the fields added later.
        try:
            return type(self._config).model_validate_json(text) == self._config
        except ValidationError:
            return False


def _read(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Whose it is and what it holds; raises whatever the libraries do if it is not a whole checkpoint."""
    header, _, content = path.read_bytes().partition(b"\n")
    if header != b"%s %08x" % (_MAGIC, zlib.crc32(content)):
        raise ValueError("its checksum does not fit its content")
    _check_container(content)
    saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    owner, state = saved["owner"], saved["state"]
    if not isinstance(state, dict):
        raise TypeError("its state is no dictionary")
    return {"config": owner["config"], "data": owner["data"]}, state


def _check_container(content: bytes) -> None:
    """Refuse what torch.load would take more memory for than it was given bytes, ``weights_only`` or not."""
    if not content.startswith(b"PK\x03\x04"):  # torch reads older formats as well, whose sizes nothing checks
        raise ValueError("it holds no zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if min(member.header_offset for member in members) != 0:
            raise ValueError("its members do not begin at its beginning")  # two readers may see two archives in it
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed, as no checkpoint is")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("its members are larger than the whole")
        for member in members:
            if member.filename.endswith(".pkl"):
                _check_pickle(archive.read(member))


def _check_pickle(content: bytes) -> None:
    # torch also allows, for one, bytearray, and a call of it with a number takes as many bytes.
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
            raise ValueError(f"it names {argument}, as no checkpoint does")
        if operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"it names something by {operation.name}, as no checkpoint does")
