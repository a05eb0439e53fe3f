"""A trial's checkpoints: one safetensors file each, written atomically and verified when read.

``last.ckpt`` is the newest, ``previous.ckpt`` the one before it, from which training resumes if the newest is damaged.
A file's tensors are the training's tensors; its metadata holds everything else as JSON, and a CRC-32 of both.
Earlier versions wrote what ``torch.save`` writes; those files are still read.
"""

import contextlib
import io
import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fer_sweep.config.trial import TrialConfig
from fer_sweep.errors import CheckpointError
from fer_sweep.files import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, WEIGHTS, atomic_path, remove_checkpoints

MAX_SHARE = 0.05
"""Largest share of the training time spent on checkpoints at the ends of epochs."""

_PICKLED = b"fersweep-checkpoint-1 "
_log = logging.getLogger(__name__)


class Checkpoint(BaseModel):
    """What one checkpoint holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    config: dict[str, Any]
    """The trial's configuration."""
    data: str
    """The fingerprint of the data set."""
    state: dict[str, Any]
    """JSON values."""
    tensors: dict[str, Tensor]
    """On the CPU."""


class Checkpoints:
    """The checkpoints in one trial's folder.

    Args:
        folder: The trial's folder.
        config: The trial's configuration; a checkpoint of another configuration is refused.
        fingerprint: Of the data set; a checkpoint of other data is refused.
        apart: Where checkpoints are written instead of ``folder``, with a copy of the best weights, for a host that
            does not see the trial's folder. A checkpoint in ``folder`` is resumed if there is none here.
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
        self._config, self._fingerprint = config, fingerprint
        self._clock = clock
        self._cost = 0.0
        self._saved_at = clock()

    def due(self) -> bool:
        """Whether to save at the end of an epoch: yes, unless saving took more than MAX_SHARE of the time."""
        return self._cost <= MAX_SHARE * (self._clock() - self._saved_at)

    def save(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint of JSON values and of tensors on any device, which becomes the newest one.

        Raises:
            StorageError: The disk is full or the folder cannot be written; earlier checkpoints remain.
        """
        began = self._clock()
        _copy_weights(self._trial, self._folder)
        plain = on_cpu(tensors)
        about = json.dumps({"config": self._config.model_dump(mode="json"), "data": self._fingerprint, "state": state})
        content = save(plain, {"fersweep": about, "crc32": str(_crc32(about, plain))})
        last = self._folder / LAST_CHECKPOINT
        with atomic_path(last) as temporary:
            temporary.write_bytes(content)
            if last.exists():
                last.replace(self._folder / PREVIOUS_CHECKPOINT)
        if self._folder != self._trial:
            remove_checkpoints(self._trial)  # older, and the best weights there may be those of a later epoch
        self._saved_at = self._clock()
        self._cost = self._saved_at - began

    def keep_newest(self) -> None:
        """Delete the checkpoint before the newest: a paused trial may wait for long, and many do."""
        (self._folder / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)

    def load(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; None if there is none, so that training starts from scratch.

        Raises:
            CheckpointError: The checkpoint belongs to another configuration or to other data.
        """
        folders = dict.fromkeys((self._folder, self._trial))
        for path in (folder / name for folder in folders for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)):
            if not path.exists():
                continue
            try:
                found = _read(path)
            except MemoryError:
                raise  # the file may be undamaged: it takes little more memory than its own length
            except Exception as error:  # torch and zipfile raise a dozen types for a damaged file
                _log.warning("skipped the damaged checkpoint %s: %s", path, error or type(error).__name__)
                continue
            self._check_owner(path, found)
            self._loaded_from = path.parent
            return found
        return None

    def restore_weights(self) -> None:
        """Copy the best weights that belong to the loaded checkpoint, if any, to the trial's folder.

        Weights already there may be of another epoch, from a host that restarted the trial from scratch.
        """
        _copy_weights(self._loaded_from, self._trial)

    def remove(self) -> None:
        """Delete the checkpoints of a finished trial; its best weights stay."""
        for folder in {self._folder, self._trial}:
            remove_checkpoints(folder)
        if self._folder != self._trial:
            (self._folder / WEIGHTS).unlink(missing_ok=True)
            for folder in (self._folder, self._folder.parent):  # the trial's and, after its last trial, the sweep's
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _check_owner(self, path: Path, found: Checkpoint) -> None:
        try:
            # Compare parsed models: the JSON of an earlier version lacks fields that were added later.
            is_own = type(self._config).model_validate(found.config) == self._config
        except ValidationError:
            is_own = False
        if is_own and found.data == self._fingerprint:
            return
        difference = "on another version of the data set" if is_own else "with another configuration"
        raise CheckpointError(
            f"{path} belongs to a trial that was trained {difference}",
            hint="train into another folder, or delete this one to start from scratch",
        )


def _copy_weights(source: Path, target: Path) -> None:
    if source != target and (source / WEIGHTS).is_file():
        with atomic_path(target / WEIGHTS) as temporary:
            shutil.copyfile(source / WEIGHTS, temporary)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in row-major order, the only one that safetensors writes."""
    row_major = torch.contiguous_format
    return {name: tensor.detach().to("cpu", copy=True, memory_format=row_major) for name, tensor in tensors.items()}


def _crc32(about: str, tensors: Mapping[str, Tensor]) -> int:
    crc = zlib.crc32(about.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, crc)
    return crc


def _read(path: Path) -> Checkpoint:
    with path.open("rb") as stream:
        if stream.read(len(_PICKLED)) == _PICKLED:
            return _read_pickled(path.read_bytes())
    with safe_open(path, framework="pt", device="cpu") as stored:
        metadata = stored.metadata() or {}
        # Copied: the mapped file may be deleted or change while the trial trains.
        tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118 not a mapping
    if metadata["crc32"] != str(_crc32(metadata["fersweep"], tensors)):
        raise ValueError("the checksum does not match the content")
    return Checkpoint(**json.loads(metadata["fersweep"]), tensors=tensors)


def _read_pickled(content: bytes) -> Checkpoint:
    """A checkpoint of an earlier version: a line with a CRC-32, then the zip that torch.save writes."""
    header, _, zipped = content.partition(b"\n")
    if header != b"%s%08x" % (_PICKLED, zlib.crc32(zipped)):
        raise ValueError("the checksum does not match the content")
    saved = torch.load(io.BytesIO(zipped), map_location="cpu", weights_only=True)  # runs no code
    state, progress = saved["state"], saved["state"]["progress"]
    tensors = {name: state[name] for name in ("rng", "cuda_rng") if state[name] is not None}
    tensors["loss_sum"] = progress.pop("loss_sum")
    for part in ("model", "average"):
        tensors |= {f"{part}.{name}": tensor for name, tensor in (state[part] or {}).items()}
    for index, moments in state["optimizer"]["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items() if tensor is not None}
    return Checkpoint(
        config=json.loads(saved["owner"]["config"]),
        data=saved["owner"]["data"],
        state={name: state[name] for name in ("progress", "precision", "history")},
        tensors=tensors,
    )
