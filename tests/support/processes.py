"""fersweep as a process, and what a test wants to know of the processes it leaves."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil

from fer_sweep.host_processes import FERSWEEP

COMMAND = FERSWEEP
SWEEP = """\
program: fersweep
method: random
metric: {name: best_val_acc, goal: maximize}
run_cap: 1
parameters:
  model: {value: simple_cnn}
  data: {value: tiny}
  epochs: {value: EPOCHS}
  channels: {value: 4}
  hidden: {value: 8}
  batch_size: {value: 16}
  lr: {min: 0.001, max: 0.01}
"""
"""A sweep of trials that take EPOCHS times some milliseconds, on the data set `tiny`."""
QUICK = {"train_samples": 140, "epochs": 4, "batch_size": 8, "lr": 0.005, "channels": 4, "dropout": 0.0}
QUICK |= {"augment.shift": 0.0, "augment.rotation": 0.0}
"""Settings of a SimpleCNN with which a trial takes a second and yet does not collapse, so that a sweep has a winner."""


def fersweep(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    env = {**os.environ, **environment}
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, env=env)


def imported_by(*arguments: str, **environment: str) -> set[str]:
    """The top-level modules that Python imports when it runs with these arguments."""
    words = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def own_core() -> int:
    """A core for whom one is enough; each worker of ``make test`` has another one, if there are so many."""
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return cores[worker % len(cores)]


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Let this process and its children run on a single core: thousands of tiny steps are slowest on contended ones."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {own_core()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def until(true: Callable[[], bool], limit_s: float = 300.0) -> None:
    """Return once it is true."""
    # Another process's progress has no event to wait for; the limit only bounds a failure.
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def descendants(pid: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def words_of(pid: int) -> str:
    """The command line, each word with a NUL after it."""
    try:
        return "".join(f"{word}\0" for word in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def private_mb(pid: int) -> float:
    """Megabytes that a process has in memory and shares with no other."""
    return psutil.Process(pid).memory_full_info().uss / 2**20
