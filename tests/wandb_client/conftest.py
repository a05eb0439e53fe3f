"""Fixtures that the tests of the W&B client share with those of the searches."""

from tests.search.conftest import clock, settings, sweep_file

__all__ = ["clock", "settings", "sweep_file"]
