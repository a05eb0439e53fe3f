"""The environment of a report: versions, processor, data sets."""

import contextlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fer_sweep.data.cache import DatasetInfo, Split, find_dataset, is_prepared
from fer_sweep.errors import FersweepError
from fer_sweep.reports.sources import Report
from fer_sweep.sweeps.entries import pinned_data

_PACKAGES = ("fersweep", "torch", "torchvision", "transformers", "optuna", "wandb", "numpy", "plotly")


@dataclass(frozen=True)
class TrainedOn:
    """A data set that the trials were trained on."""

    name: str
    fingerprint: str = ""
    """Empty if no sweep has pinned it and it is not prepared on this machine."""
    sizes: str = ""
    """Images by split."""
    source: str = ""


@dataclass(frozen=True)
class Environment:
    """An installation and the data sets of the trials."""

    versions: tuple[tuple[str, str], ...]
    machine: str
    devices: str
    data: tuple[TrainedOn, ...]
    precision: str
    """The arithmetic of the trials."""


def environment(report: Report, devices: Sequence[str]) -> Environment:
    """Describe this installation and the data sets of the trials.

    Args:
        report: Its trials name the data sets.
        devices: The names of this machine's GPUs.
    """
    versions = [("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            versions.append((package, version(package)))
        except PackageNotFoundError:
            continue
    names = sorted({str(record.config.get("data", "")) for _, record in report.trials} - {""})
    precisions = sorted({record.result.precision for _, record in report.trials if record.result is not None})
    return Environment(
        versions=tuple(versions),
        machine=f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} logical cores",
        devices="; ".join(devices) or "no GPU",
        data=tuple(found for name in names for found in _trained_on(name, report)),
        precision=", ".join(precisions),
    )


def _prepared(name: str) -> DatasetInfo | None:
    with contextlib.suppress(FersweepError):  # a damaged data set must not prevent the report
        return find_dataset(name) if is_prepared(name) else None
    return None


def _trained_on(name: str, report: Report) -> list[TrainedOn]:
    """The contents that the sweeps pinned under a name, or else the one prepared here."""
    pinned = (pinned_data(sweep.id, name) for sweep in report.sweeps)
    infos = {info.fingerprint: info for info in pinned if info is not None}
    if not infos and (here := _prepared(name)) is not None:
        infos = {here.fingerprint: here}
    return [_described(info) for info in infos.values()] or [TrainedOn(name)]


def _described(info: DatasetInfo) -> TrainedOn:
    sizes = ", ".join(f"{split.name.lower()} {info.split_total(split):,}" for split in Split)
    return TrainedOn(info.name, info.fingerprint, sizes, info.source)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "processor unknown"  # not Linux
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "processor unknown")
