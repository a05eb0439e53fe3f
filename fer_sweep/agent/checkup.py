"""Checks of ``fersweep doctor``. Nothing heavy is imported and no CUDA context created."""

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fer_sweep.data.cache import list_datasets
from fer_sweep.errors import FersweepError
from fer_sweep.files import cache_dir, home, write_atomically
from fer_sweep.store.database import Database, check_storage, default_storage
from fer_sweep.store.engine import NothingCreated
from fer_sweep.wandb_client.account import has_login, tracking_mode
from fer_sweep.worker.gpus import choose, discover, visible_devices
from fer_sweep.worker.slots import usable_cores

_PACKAGES = ("torch", "torchvision", "transformers", "optuna", "wandb", "pydantic")
_LITTLE_ROOM_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    topic: str
    ok: bool
    """False if something is missing that a user may want."""
    found: str
    advice: str = ""


def examine() -> tuple[Finding, ...]:
    """Run all checks; a failed one is a finding, not an error."""
    return tuple(_findings())


def _findings() -> Iterator[Finding]:
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in _PACKAGES:
        yield _package(package)
    yield _gpus()
    yield _processor()
    yield _data()
    yield _storage()
    yield _database()
    yield _room()
    yield _wandb()
    yield _optional("parquet", "pyarrow", "Hugging Face's parquet files")
    yield _optional("postgres", "psycopg", "searches on many hosts")
    yield _optional("onnx", "onnxruntime", "exports to ONNX")
    yield _optional("faces", "cv2", "finding faces in pictures (predict --crop-face)")


def _optional(part: str, package: str, use: str) -> Finding:
    if importlib.util.find_spec(package) is not None:
        return Finding(part, True, f"{package} is installed")
    return Finding(part, False, f"{package} is not installed", f"only for {use}: pip install 'fersweep[{part}]'")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", f"install fersweep again with {sys.executable} -m pip")


def _gpus() -> Finding:
    gpus = choose("auto", discover(), visible_devices())
    if not gpus:
        advice = "trials run on the CPU; with an NVIDIA GPU, check that nvidia-smi shows it"
        return Finding("GPUs", False, "none", advice)
    return Finding("GPUs", True, "; ".join(f"{gpu.index}: {gpu.name}, {gpu.memory_mb:,} MB" for gpu in gpus))


def _processor() -> Finding:
    flags = _processor_flags()
    has = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    found = f"{usable_cores()} usable cores, " + (f"bf16 by {', '.join(has)}" if has else "no bf16 instructions")
    return Finding("processor", True, found, "" if has else "`precision: auto` takes fp32 here")


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()  # not Linux
    return next((set(line.split()) for line in text.splitlines() if line.startswith(("flags", "Features"))), set())


def _data() -> Finding:
    try:
        names = [info.name for info in list_datasets()]
    except FersweepError as error:
        return Finding("data", False, str(error), error.hint or "")
    found = f"{', '.join(['synthetic', *(n for n in names if n != 'synthetic')])} (in {cache_dir()})"
    if "fer2013" in names:
        return Finding("data", True, found)
    return Finding("data", False, found, "the shipped sweeps want fer2013: fersweep data prepare PATH --name fer2013")


def _storage() -> Finding:
    probe = home() / ".doctor"
    try:
        write_atomically(probe, "writable")
        probe.unlink()
    except (FersweepError, OSError) as error:
        return Finding("storage", False, str(error), "set FERSWEEP_HOME to a folder that can be written")
    return Finding("storage", True, f"{home()} is writable")


def _database() -> Finding:
    """The database of sweeps created from now on."""
    given = os.environ.get("FERSWEEP_STORAGE")
    try:
        name = check_storage(given or default_storage())
        if given:
            with contextlib.suppress(NothingCreated):
                Database(given).close()
    except FersweepError as error:
        return Finding("database", False, str(error), error.hint or "")
    return Finding("database", True, name + (" (from FERSWEEP_STORAGE)" if given else ""))


def _room() -> Finding:
    try:
        place = next(folder for folder in (home(), *home().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("disk", False, str(error), "set FERSWEEP_HOME to a folder that can be written")
    enough = free >= _LITTLE_ROOM_BYTES
    found = f"{free / 2**30:,.1f} GiB free in {home()}"
    return Finding("disk", enough, found, "" if enough else "checkpoints need space: free some")


def _wandb() -> Finding:
    try:
        mode = tracking_mode()
    except FersweepError as error:
        return Finding("W&B", False, str(error), error.hint or "")
    why = "set by WANDB_MODE" if os.environ.get("WANDB_MODE") else "set by wandb's settings"
    if mode != "online":
        if has_login() or os.environ.get("WANDB_MODE"):
            return Finding("W&B", True, f"{mode}: {why}")
        return Finding("W&B", True, "offline: no login found", "to log online: wandb login, or set WANDB_API_KEY")
    from fer_sweep.wandb_client.sweeps import connect  # only here: wandb takes half a second to import

    try:
        with contextlib.closing(connect()) as server:
            return Finding("W&B", True, f"online: {server.default_entity(tries=1)} on {server.account.shown}")
    except FersweepError as error:
        return Finding("W&B", False, str(error), error.hint or "")
