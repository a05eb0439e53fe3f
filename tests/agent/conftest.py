"""The stage of the agent's loop."""

from pathlib import Path

import pytest

from tests.support.agent_stage import Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Trials are played; stops and drains are asked for without a wait."""
    monkeypatch.setattr("fer_sweep.agent.loop.POLL_S", 0.01)
    return Stage(tmp_path / "trials")
