"""What the tests of training share: a small data set, prepared once."""

from pathlib import Path

import pytest

from tests.support.faces import Faces


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the data set `tiny`: 70 training and 21 validation images, of which 7 are copies."""
    return Faces.barred([70, 21, 7], copies_at=70).prepared(tmp_path_factory.mktemp("tiny"), "tiny")


@pytest.fixture(autouse=True)
def tiny_data(own_folders: Path, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here finds `tiny` prepared."""
    monkeypatch.setenv("FERSWEEP_CACHE", str(tiny_cache))
