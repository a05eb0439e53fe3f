"""The fixtures of the searches: sweeps, storages, agents and a manual clock."""

from collections.abc import Callable

import pytest

from tests.search.conftest import agents, clock, harness, made, settings, storage, sweep_file

__all__ = ["agents", "clock", "harness", "made", "settings", "storage", "sweep_file"]


@pytest.fixture
def lock_timeout(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how many seconds a transaction waits for another one, or for a server."""

    def set_to(seconds: float) -> None:
        for engine in ("sqlite", "postgres"):
            monkeypatch.setattr(f"fer_sweep.store.{engine}.LOCK_TIMEOUT_S", seconds)

    return set_to
