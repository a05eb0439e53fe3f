"""What the tests of a module leave running is ended with it."""

from collections.abc import Iterator

import pytest

from fer_sweep.agent.processes import TrialStarter


@pytest.fixture(scope="module", autouse=True)
def no_forkserver_left() -> Iterator[None]:
    """``stage.Starter`` leaves its forkserver to the next test; elsewhere its environment would be another test's."""
    yield
    TrialStarter().close()
