"""How long a trial stays its owner's, as the environment says it."""

import pytest

from fer_sweep.errors import InputError
from fer_sweep.search.leases import LEASE_S, lease_seconds


def test_the_environment_can_set_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERSWEEP_LEASE_S", raising=False)
    assert lease_seconds() == LEASE_S
    monkeypatch.setenv("FERSWEEP_LEASE_S", "")
    assert lease_seconds() == LEASE_S
    monkeypatch.setenv("FERSWEEP_LEASE_S", "4.5")
    assert lease_seconds() == 4.5


@pytest.mark.parametrize("given", ["soon", "-5", "0", "1.9", "nan", "inf", "1e9", "4 5"])
def test_a_lease_that_makes_no_sense_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", given)
    with pytest.raises(InputError, match="FERSWEEP_LEASE_S"):
        lease_seconds()
