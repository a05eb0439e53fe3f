"""Private memory of a further trial: a fork that shares what the forkserver imported, against a process of its own."""

import contextlib
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.commands import FERSWEEP, SWEEPS, run
from tests.benchmarks.rows import Row
from tests.support.processes import descendants, private_mb, until

LONG = ["epochs=200", "train_samples=64", "channels=4", "hidden=8", "batch_size=64"]
"""A trial so small that what is measured is the process, and so long that it is still there."""


def forked() -> float:
    """Megabytes that a trial of a running agent holds for itself; the median of its slots."""
    slots = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as home:
        fixed = [word for value in LONG for word in ("--set", value)]
        run(["create", str(SWEEPS / "simple_cnn.yaml"), "--data=synthetic", *fixed], FERSWEEP_HOME=home)
        with _started(["agent", "--gpus=none", f"--slots={slots}"], home) as agent:
            until(lambda: len(list(Path(home).glob("sweeps/*/trials/*/history.jsonl"))) == slots)
            trials = [pid for pid in descendants(agent.pid) if _log_of(pid) == "trial.log"]
            return statistics.median(private_mb(pid) for pid in trials)


def cold() -> float:
    """Megabytes that the same trial holds in a process of its own (``fersweep train``)."""
    with tempfile.TemporaryDirectory() as home:
        given = [f"--{value.replace('_', '-')}" for value in LONG]
        words = ["train", "--model=simple_cnn", "--data=synthetic", *given, f"--folder={home}/trial"]
        with _started(words, home) as trainer:
            until(lambda: (Path(home) / "trial" / "history.jsonl").exists())
            return private_mb(trainer.pid)


@contextlib.contextmanager
def _started(words: Sequence[str], home: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "FERSWEEP_HOME": home, "WANDB_MODE": "disabled"}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen([*FERSWEEP, *words], env=environment, stdout=nowhere, stderr=nowhere) as started:
        try:
            yield started
        finally:
            started.kill()  # its trials end with it


def _log_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/fd/1").readlink().name
    return ""


ROWS: Mapping[str, Row] = {
    "memory": Row(
        "private memory of a further trial, MB",
        {"fersweep": lambda _: forked(), "a process of its own": lambda _: cold()},
        better="less",
    )
}
