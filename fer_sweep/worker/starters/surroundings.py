"""What a trial's process inherits from its agent: held-back signals, and none of the user's modules."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import ModuleType

from fer_sweep.errors import AgentFailed
from fer_sweep.host_processes import holding_back_signals
from fer_sweep.worker.trial_process import PRELOAD, run_trial

_PACKAGES = Path(__file__).resolve().parent.parent.parent.parent
"""The folder fersweep is imported from."""


def preloaded(models: Iterable[str]) -> list[str]:
    """The modules that a trial of these architectures finds imported."""
    return [PRELOAD, *(f"fer_sweep.models.{model}" for model in models), run_trial.__module__]


def cannot_start(error: OSError) -> AgentFailed:
    """The error of an agent that the system gives no further process."""
    hint = "use fewer slots, or raise the limits of open files (ulimit -n) and processes (ulimit -u)"
    return AgentFailed(f"no trial can be started: {error.strerror or error}", hint=hint)


@contextmanager
def surroundings() -> Iterator[None]:
    """Start processes in this block."""
    # A signal to the whole process group (Ctrl-C, a closed terminal, scancel) must end neither the forkserver, whose
    # forks would die with it, nor a spare, nor a trial in its first milliseconds. For the agent itself it only waits.
    with _own_modules_only():
        if sys.platform != "win32":
            with holding_back_signals():
                resource_tracker.ensure_running()
        with holding_back_signals():  # once more: the start of the resource tracker unblocks signals
            yield


@contextmanager
def _own_modules_only() -> Iterator[None]:
    # multiprocessing has every child run the main module's file again, for functions defined there. Ours is the
    # console script: that cost each trial 0.1 s, and a fersweep updated on disk under a running agent broke them all.
    main, path = sys.modules["__main__"], sys.path
    sys.modules["__main__"] = ModuleType("__main__")
    safe = os.environ.get("PYTHONSAFEPATH")
    if not _PACKAGES.samefile("."):  # a random.py or torch.py in the working directory is not meant for us
        sys.path = [entry for entry in path if Path(entry).resolve() != Path.cwd()]
        os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if safe is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        sys.path = path
        sys.modules["__main__"] = main
