"""What `fersweep doctor` reports about databases."""

from pathlib import Path

import pytest

from fer_sweep import mounts
from fer_sweep.agent.checkup import Finding, examine
from fer_sweep.store.database import default_storage


def found(topic: str) -> Finding:
    (found,) = [finding for finding in examine() if finding.topic == topic]
    return found


def test_the_database_is_named_and_refused_on_a_network_file_system_unless_it_is_a_server(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found("database") == Finding("database", True, default_storage())
    (tmp_path / "mountinfo").write_text("1 0 8:1 / / rw - lustre x rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    refused = found("database")
    assert not refused.ok
    assert "network file system (lustre)" in refused.found
    assert "FERSWEEP_STORAGE" in refused.advice
    monkeypatch.setenv("FERSWEEP_STORAGE", postgres)
    assert found("database") == Finding("database", True, f"{postgres} (FERSWEEP_STORAGE says so)")
