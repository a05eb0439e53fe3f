"""How long an agent's trials stay its own while its loop says nothing of them."""

import time

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.records import TrialRequest
from fer_sweep.search import leases
from fer_sweep.search.database import default_storage
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.storage import create_sweep
from tests.support.processes import until

LEASE_S = 2.0


def agent(owner: str) -> OptunaSearch:
    return OptunaSearch("held", storage=default_storage(), owner=owner, lease_s=LEASE_S)


def test_an_agent_that_is_held_up_keeps_its_trial_and_one_that_hangs_loses_it(
    monkeypatch: pytest.MonkeyPatch, settings
) -> None:
    create_sweep(parse_sweep(settings(run_cap=1)), sweep_id="held", storage=default_storage())
    busy, other = agent("busy"), agent("other")
    monkeypatch.setattr(leases, "KEPT_LEASES", 1e9)
    taken = busy.next_trial("cpu/0")
    assert isinstance(taken, TrialRequest)
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * LEASE_S:  # nothing is said, and its keeper renews
        assert not isinstance(other.next_trial("cpu/0"), TrialRequest)
    monkeypatch.setattr(leases, "KEPT_LEASES", 0.0)
    until(lambda: isinstance(other.next_trial("cpu/0"), TrialRequest))
    busy.close()
    other.close()
