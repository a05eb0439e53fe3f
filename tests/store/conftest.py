"""The fixtures of the searches: sweeps, storages, agents and a manual clock."""

from tests.search.conftest import agents, clock, harness, made, settings, storage, sweep_file

__all__ = ["agents", "clock", "harness", "made", "settings", "storage", "sweep_file"]
