"""Private memory of a further trial: a fork that shares what the forkserver imported, against a process of its own."""

import os
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.commands import FERSWEEP, SWEEPS, run
from tests.benchmarks.rows import Row
from tests.support.processes import descendants, private_mb, until

LONG = ["epochs=200", "train_samples=64", "channels=4", "hidden=8", "batch_size=64"]
"""A trial so small that what is measured is the process, and so long that it is still there."""


def forked() -> float:
    """Megabytes that a trial of a running agent holds for itself; the median of its slots."""
    with tempfile.TemporaryDirectory() as home:
        fixed = [word for value in LONG for word in ("--set", value)]
        run(["create", str(SWEEPS / "simple_cnn.yaml"), "--data=synthetic", *fixed], FERSWEEP_HOME=home)
        words = [*FERSWEEP, "agent", "--gpus=none", f"--slots={os.cpu_count()}"]
        with _Process(words, home) as agent:
            slots = os.cpu_count() or 1
            until(lambda: len(list(Path(home).glob("sweeps/*/trials/*/history.jsonl"))) == slots)
            logs = [str(path.parent / "trial.log") for path in Path(home).glob("sweeps/*/trials/*/history.jsonl")]
            trials = [pid for pid in descendants(agent.pid) if _writes_to(pid) in logs]
            return statistics.median(private_mb(pid) for pid in trials)


def cold() -> float:
    """Megabytes that the same trial holds in a process of its own (``fersweep train``)."""
    with tempfile.TemporaryDirectory() as home:
        given = [f"--{value.replace('_', '-')}" for value in LONG]
        words = [*FERSWEEP, "train", "--model=simple_cnn", "--data=synthetic", *given, f"--folder={home}/trial"]
        with _Process(words, home) as trainer:
            until(lambda: (Path(home) / "trial" / "history.jsonl").exists())
            return private_mb(trainer.pid)


class _Process:
    def __init__(self, words: list[str], home: str) -> None:
        self._words = words
        self._environment = {**os.environ, "FERSWEEP_HOME": home, "WANDB_MODE": "disabled"}

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._started = subprocess.Popen(
            self._words, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self._started

    def __exit__(self, *_: object) -> None:
        self._started.kill()  # its trials end with it
        self._started.wait()


def _writes_to(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/1").readlink())
    except OSError:
        return ""


ROWS: Mapping[str, Row] = {
    "memory": Row(
        "private memory of a further trial, MB",
        {"fersweep": lambda _: forked(), "a process of its own": lambda _: cold()},
        better="less",
    )
}
