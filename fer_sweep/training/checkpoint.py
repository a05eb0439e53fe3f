"""Checkpoints: whole or not at all, checked when read, and of this trial only.

``last.ckpt`` is the newest and ``previous.ckpt`` the one before it, which is gone on from when the newest is
damaged. A file is one line with a CRC-32, then what torch.save writes; nothing but tensors and plain values
is ever unpickled.
"""

import io
import logging
import pickle
import time
import zlib
from pathlib import Path
from typing import Any

import torch

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import CheckpointError
from fer_sweep.files import atomic_path

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
MAX_SHARE = 0.05
"""Of a training's time that may go into checkpoints at the ends of epochs."""

_MAGIC = b"fersweep-checkpoint-1"
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one trial's folder.

    Args:
        folder: The trial's folder.
        config: What is trained; a checkpoint of another configuration is refused.
        fingerprint: Of the data trained on; a checkpoint of other data is refused.
    """

    def __init__(self, folder: Path, config: TrialConfig, fingerprint: str) -> None:
        self._last, self._previous = folder / LAST, folder / PREVIOUS
        self._owner = {"config": config.model_dump_json(), "data": fingerprint}
        self._cost = 0.0
        self._saved_at = time.perf_counter()

    def due(self) -> bool:
        """Whether the end of an epoch should be saved: always, unless that took more than MAX_SHARE of the time."""
        return self._cost <= MAX_SHARE * (time.perf_counter() - self._saved_at)

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` (tensors, numbers, strings, lists and dictionaries of them) as the newest checkpoint.

        Raises:
            StorageError: The disk is full or the folder cannot be written; what was saved before is still there.
        """
        began = time.perf_counter()
        buffer = io.BytesIO()
        torch.save({"owner": self._owner, "state": state}, buffer)
        content = buffer.getbuffer()
        with atomic_path(self._last) as temporary:
            with temporary.open("wb") as stream:
                stream.write(b"%s %08x\n" % (_MAGIC, zlib.crc32(content)))
                stream.write(content)
            if self._last.exists():
                self._last.replace(self._previous)
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - began

    def load(self) -> dict[str, Any] | None:
        """The newest undamaged state, on the CPU, or None if there is none: then the training begins anew.

        Raises:
            CheckpointError: The checkpoint belongs to another configuration or to other data.
        """
        for path in (self._last, self._previous):
            if not path.exists():
                continue
            try:
                saved = _read(path)
            except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                _log.warning("%s cannot be read and is passed over: %s", path, error)
                continue
            self._refuse_others(path, saved["owner"])
            state: dict[str, Any] = saved["state"]
            return state
        return None

    def remove(self) -> None:
        """Delete the checkpoints of a finished trial, which nothing goes on from any more."""
        self._last.unlink(missing_ok=True)
        self._previous.unlink(missing_ok=True)

    def _refuse_others(self, path: Path, owner: dict[str, str]) -> None:
        for what, name in (("config", "another configuration"), ("data", "another content of the data set")):
            if owner[what] != self._owner[what]:
                raise CheckpointError(
                    f"{path} was written by a training with {name}",
                    hint="train into another folder, or delete this one to begin anew",
                )


def _read(path: Path) -> dict[str, Any]:
    header, _, content = path.read_bytes().partition(b"\n")
    if header != b"%s %08x" % (_MAGIC, zlib.crc32(content)):
        raise ValueError("its checksum does not fit its content")
    saved: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return saved
