"""How long a trial stays its owner's."""

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError
from fer_sweep.search.database import Database
from fer_sweep.search.leases import LEASE_S, lease_seconds
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep


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


def test_a_question_writes_only_once_the_lease_is_half_over(storage, settings, clock) -> None:
    create_sweep(parse_sweep(settings()), sweep_id="a", storage=storage)
    search = OptunaSearch("a", storage=storage, owner="a", lease_s=60.0, clock=clock)
    trial = search.next_trial("cpu0").trial_id

    def lease() -> float:
        with search._leases.ledger(write=False) as ledger:
            return float(ledger.all()[0]["lease_until"]) - clock.now

    blocker = Database(storage)
    with blocker.transaction(write=True):
        clock.now += 29
        assert search.report(trial, 1, {}) is None  # would wait for a minute
    assert lease() == 31
    clock.now += 2
    assert search.report(trial, 1, {}) is None
    assert lease() == 60
    blocker.close()
    search.close()
