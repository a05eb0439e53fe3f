"""Checks of ``fersweep doctor``. Nothing heavy is imported and no CUDA context created."""

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from fer_sweep.data.cache import list_datasets
from fer_sweep.errors import FersweepError
from fer_sweep.files import cache_dir, home, write_atomically
from fer_sweep.processor import bf16_flags
from fer_sweep.store.database import Database, check_storage, default_storage
from fer_sweep.store.engine import NothingCreated
from fer_sweep.wandb_client.account import has_login, tracking_mode
from fer_sweep.worker.slots import gpus_here, usable_cores

_PACKAGES = ("torch", "torchvision", "transformers", "optuna", "wandb", "pydantic")
_OPTIONAL = {
    "parquet": ("pyarrow", "Hugging Face's parquet files"),
    "postgres": ("psycopg", "searches on many hosts"),
    "onnx": ("onnxruntime", "exports to ONNX"),
    "faces": ("cv2", "finding faces in pictures (predict --crop-face)"),
}
"""By the name of the extra: its package, and what it is for."""
_PLATFORMS = {
    "linux": (True, "Linux, where every test of fersweep runs", ""),
    "darwin": (
        False,
        "macOS: fersweep has not been run on it; types and imports are checked",
        "please report what fails",
    ),
    "win32": (
        False,
        "Windows: fersweep has not been run on it; types and imports are checked",
        "pools start no agents there; if an agent fails, please report it and run fersweep in WSL",
    ),
}
"""By ``sys.platform``: whether agents are known to run on it, what was checked there, and what to do."""
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
    findings = [Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    findings.append(_platform())
    findings += [_package(package) for package in _PACKAGES]
    for topic, check in (
        ("GPUs", _gpus),
        ("processor", _processor),
        ("data", _data),
        ("storage", _storage),
        ("database", _database),
        ("disk", _room),
        ("W&B", _wandb),
    ):
        try:
            findings.append(check())
        except FersweepError as error:
            findings.append(Finding(topic, False, str(error), error.hint or ""))
        except OSError as error:
            findings.append(Finding(topic, False, str(error), "set FERSWEEP_HOME to a folder that can be written"))
    for extra, (package, use) in _OPTIONAL.items():
        is_there = importlib.util.find_spec(package) is not None
        advice = "" if is_there else f"only for {use}: pip install 'fersweep[{extra}]'"
        findings.append(Finding(extra, is_there, f"{package} is {'' if is_there else 'not '}installed", advice))
    return tuple(findings)


def _platform() -> Finding:
    unknown = (False, f"{sys.platform}: fersweep has not been run on it", "please report what fails")
    ok, found, advice = _PLATFORMS.get(sys.platform, unknown)
    return Finding("platform", ok, found, advice)


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", f"install fersweep again with {sys.executable} -m pip")


def _gpus() -> Finding:
    problems: list[str] = []
    gpus = gpus_here("auto", note=problems.append)
    found = "; ".join([*(f"{gpu.index}: {gpu.name}, {gpu.memory_mb:,} MB" for gpu in gpus), *problems])
    if any(gpu.is_mps for gpu in gpus):
        advice = (
            "fersweep has not been run on Apple's GPUs; please report what fails, and train on the CPU: --gpus none"
        )
        return Finding("GPUs", False, found, advice)
    advice = "" if gpus else "trials run on the CPU; with an NVIDIA GPU, check that nvidia-smi shows it"
    return Finding("GPUs", bool(gpus) and not problems, found or "none", advice)


def _processor() -> Finding:
    has = bf16_flags()
    found = f"{usable_cores()} usable cores, " + (f"bf16 by {', '.join(has)}" if has else "no bf16 instructions")
    return Finding("processor", True, found, "" if has else "`precision: auto` takes fp32 here")


def _data() -> Finding:
    names = [info.name for info in list_datasets()]
    found = f"{', '.join(['synthetic', *(n for n in names if n != 'synthetic')])} (in {cache_dir()})"
    if "fer2013" in names:
        return Finding("data", True, found)
    return Finding("data", False, found, "the shipped sweeps want fer2013: fersweep data prepare PATH --name fer2013")


def _storage() -> Finding:
    probe = home() / ".doctor"
    write_atomically(probe, "writable")
    probe.unlink()
    return Finding("storage", True, f"{home()} is writable")


def _database() -> Finding:
    """The database of sweeps created from now on."""
    given = os.environ.get("FERSWEEP_STORAGE")
    name = check_storage(given or default_storage())
    if given:
        with contextlib.suppress(NothingCreated):
            Database(given).close()
    return Finding("database", True, name + (" (from FERSWEEP_STORAGE)" if given else ""))


def _room() -> Finding:
    place = next(folder for folder in (home(), *home().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    enough = free >= _LITTLE_ROOM_BYTES
    found = f"{free / 2**30:,.1f} GiB free in {home()}"
    return Finding("disk", enough, found, "" if enough else "checkpoints need space: free some")


def _wandb() -> Finding:
    mode = tracking_mode()
    if mode != "online":
        if has_login() or os.environ.get("WANDB_MODE"):
            why = "set by WANDB_MODE" if os.environ.get("WANDB_MODE") else "set by wandb's settings"
            return Finding("W&B", True, f"{mode}: {why}")
        return Finding("W&B", True, "offline: no login found", "to log online: wandb login, or set WANDB_API_KEY")
    from fer_sweep.wandb_client.sweeps import connect  # only here: wandb takes half a second to import

    with contextlib.closing(connect()) as server:
        return Finding("W&B", True, f"online: {server.default_entity(tries=1)} on {server.account.shown}")
