"""Why a trial's process ended without an outcome."""

import signal
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from fer_sweep.records import Cause
from fer_sweep.worker.resources import OomKills
from fer_sweep.worker.starters import TrialHandle
from fer_sweep.worker.trial_process import cause_of


@pytest.mark.parametrize(
    ("exitcode", "found", "reason", "cause"),
    [
        (-signal.SIGKILL, {}, "ended by SIGKILL, by a user, a scheduler or an out-of-memory daemon", Cause.KILLED),
        (-signal.SIGKILL, {"oom_kills": 1}, "ended by SIGKILL, by the kernel: out of memory", Cause.OUT_OF_MEMORY),
        (255, {}, "ended with the forkserver, which was killed", Cause.KILLED),
        (-signal.SIGSEGV, {}, "ended by SIGSEGV", None),
        (1, {}, "ended with exit code 1 and no outcome", None),
        (-signal.SIGABRT, {"log": "std::bad_alloc"}, "ended by SIGABRT", Cause.OUT_OF_MEMORY),
    ],
)
def test_the_reason_and_cause_of_an_end_without_an_outcome(exitcode, found, reason, cause, tmp_path, monkeypatch):
    kills = [0]
    monkeypatch.setattr("fer_sweep.worker.resources.oom_kills", lambda: kills[0])
    if log := found.get("log"):
        (tmp_path / "trial.log").write_text(f"{log}\nExtension modules: numpy, torch\n")
    ended: Any = SimpleNamespace(pid=1, exitcode=exitcode, join=lambda: None)
    handle = TrialHandle(ended, Mock(), tmp_path, OomKills())
    kills[0] += found.get("oom_kills", 0)
    tail = f"; last lines of trial.log:\n{log}" if log else ""
    assert handle.why_it_died() == (reason + tail, cause)


class OutOfMemoryError(RuntimeError):
    """What torch calls it; torch itself would take seconds to import here."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Cause.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), Cause.OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive"), Cause.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Cause.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Cause.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Cause.DEVICE),
        (RuntimeError("MPS backend out of memory (MPS allocated: 7.43 GB, other allocations"), Cause.OUT_OF_MEMORY),
        (RuntimeError("Invalid buffer size: 19.45 GB"), Cause.OUT_OF_MEMORY),
        (RuntimeError("Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)"), Cause.DEVICE),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (ValueError("Expected more than 1 value per channel when training"), None),
    ],
)
def test_errors_are_classified_by_their_message(error, cause):
    assert cause_of(error) is cause
