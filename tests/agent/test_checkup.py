"""What `fersweep doctor` reports about databases."""

import sys
from pathlib import Path

import pytest

from fer_sweep import mounts
from fer_sweep.agent.checkup import Finding, examine
from fer_sweep.store.database import default_storage


def database() -> Finding:
    (found,) = [finding for finding in examine() if finding.topic == "database"]
    return found


def test_the_database_file_is_named() -> None:
    assert database() == Finding("database", True, default_storage())


def test_a_home_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text("1 0 8:1 / / rw - lustre x rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    found = database()
    assert not found.ok
    assert "network file system (lustre)" in found.found
    assert "FERSWEEP_STORAGE" in found.advice


def test_a_server_is_connected_to_and_its_password_not_shown(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text("1 0 8:1 / / rw - lustre x rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")  # is no matter then
    monkeypatch.setenv("FERSWEEP_STORAGE", postgres)
    assert database() == Finding("database", True, f"{postgres} (FERSWEEP_STORAGE says so)")
    monkeypatch.setenv("FERSWEEP_STORAGE", "postgresql+psycopg://me:secret@127.0.0.1:1/db")
    found = database()
    assert not found.ok
    assert "me@127.0.0.1:1/db" in found.found
    assert "secret" not in found.found + found.advice


def test_without_psycopg_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    (found,) = [finding for finding in examine() if finding.topic == "postgres"]
    assert not found.ok
    assert "pip install 'fersweep[postgres]'" in found.advice
