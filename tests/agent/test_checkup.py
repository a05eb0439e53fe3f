"""What `fersweep doctor` reports about platforms and databases."""

import sys
from types import SimpleNamespace

import pytest

from fer_sweep.agent.checkup import Finding, examine
from fer_sweep.store.database import default_storage
from fer_sweep.worker.slots import MPS, Gpu


def found(topic: str) -> Finding:
    (found,) = [finding for finding in examine() if finding.topic == topic]
    return found


@pytest.mark.parametrize(
    ("platform", "ok", "says"),
    [
        ("linux", True, "every test"),
        ("darwin", False, "not been run"),
        ("win32", False, "WSL"),
        ("plan9", False, "plan9"),
    ],
)
def test_what_was_run_on_this_platform_is_said(
    monkeypatch: pytest.MonkeyPatch, platform: str, ok: bool, says: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    finding = found("platform")
    assert finding.ok == ok
    assert says in finding.found + finding.advice


def test_apples_gpu_is_shown_as_one_that_fersweep_has_not_been_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_sweep.worker.slots.discover", lambda note: (Gpu(MPS, MPS, "Apple GPU", 16_384),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = found("GPUs")
    assert (finding.ok, finding.found) == (False, "mps: Apple GPU, 16,384 MB")
    assert "has not been run" in finding.advice and "--gpus none" in finding.advice


def test_the_database_is_named_and_refused_on_a_network_file_system_unless_it_is_a_server(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found("database") == Finding("database", True, default_storage())
    disk = SimpleNamespace(mountpoint="/", fstype="lustre")
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [disk])
    refused = found("database")
    assert not refused.ok
    assert "network file system (lustre)" in refused.found
    assert "FERSWEEP_STORAGE" in refused.advice
    monkeypatch.setenv("FERSWEEP_STORAGE", postgres)
    assert found("database") == Finding("database", True, f"{postgres} (from FERSWEEP_STORAGE)")
