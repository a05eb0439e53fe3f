"""An agent's trials stay its own while its loop is held up, but not for ever; those of a dead process are free."""

import subprocess
import sys

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError
from fer_sweep.owners import is_dead, this_process
from fer_sweep.records import TrialRequest
from fer_sweep.store import leases
from fer_sweep.store.database import default_storage
from fer_sweep.store.sweeps import create_sweep
from tests.search.conftest import LEASE_S
from tests.support.processes import until


@pytest.fixture
def ended():
    """The owner that an ended process was; it is not yet reaped, as the child of an agent may be for long."""
    code = "from fer_sweep.owners import this_process; print(this_process())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        owner = process.stdout.read().strip()
        until(lambda: is_dead(owner))
        yield owner


@pytest.fixture
def single(settings):
    """A sweep `a` of one trial in the storage of this home."""
    create_sweep(parse_sweep(settings(run_cap=1)), sweep_id="a", storage=default_storage())


def test_keeper_renews_the_leases_of_an_agent_that_is_held_up(single, clock, agents):
    busy = agents(lease_s=0.04, clock=clock)  # the keeper wakes four times in it, by the real clock
    busy.next_trial("cpu/0")
    clock.now += 0.03

    def expires():
        with busy._leases.ledger(write=False) as ledger:
            return ledger.all()[0]["lease_until"]

    until(lambda: expires() == clock.now + 0.04)


def test_agent_that_has_been_silent_for_too_long_loses_its_trial(single, clock, agents):
    silent, other = (agents(owner=owner, lease_s=LEASE_S, clock=clock) for owner in ("silent", "other"))
    taken = silent.next_trial("cpu/0")
    for _ in range(leases.KEPT_LEASES):
        clock.now += LEASE_S
        silent._leases.renew_running()
        assert not isinstance(other.next_trial("cpu/0"), TrialRequest)
    clock.now += LEASE_S
    silent._leases.renew_running()
    assert (other.next_trial("cpu/0").trial_id, taken.attempt) == (taken.trial_id, 1)


def test_trial_of_a_dead_process_is_reclaimed_before_its_lease_expires(single, clock, agents, ended):
    held = agents(owner=ended, clock=clock).next_trial("cpu/0")
    taken = agents(clock=clock).next_trial("cpu/0")
    assert (taken.trial_id, held.attempt, taken.attempt) == (held.trial_id, 1, 2)


def test_owner_is_dead_once_its_process_has_ended_and_when_its_number_is_used_again(ended):
    host, pid, started = this_process().rsplit(":", 2)
    assert not is_dead(this_process())
    assert is_dead(ended)
    if started != "0":
        assert is_dead(f"{host}:{pid}:{int(started) - 1}")


@pytest.mark.parametrize("owner", ["", "me", "a:b", "a:b:c", "other/host:1:2", "::", "elsewhere:PID:0"])
def test_owner_on_another_host_is_never_taken_for_dead(owner):
    assert not is_dead(owner.replace("PID", this_process().rsplit(":", 2)[1]))


@pytest.mark.parametrize("given", ["soon", "1", "nan", "1e9"])
def test_lease_that_is_no_usable_time_is_refused(monkeypatch, given):
    monkeypatch.setenv("FERSWEEP_LEASE_S", given)
    with pytest.raises(InputError, match="FERSWEEP_LEASE_S"):
        leases.lease_seconds()
    monkeypatch.setenv("FERSWEEP_LEASE_S", "5")
    assert leases.lease_seconds() == 5.0
