"""Whose trials are: an agent's while its loop is held up, nobody's once its process is dead; and how many remain."""

import subprocess
import threading

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import InputError
from fer_sweep.owners import is_dead, this_process
from fer_sweep.records import TrialRequest
from fer_sweep.search.embedded import create_sweep
from fer_sweep.store import leases
from fer_sweep.store.database import default_storage
from fer_sweep.sweeps import Remaining, open_entry
from fer_sweep.sweeps.entries import SweepEntry
from tests.search.conftest import LEASE_S
from tests.support.processes import until
from tests.support.searches import steer


@pytest.fixture
def single(settings):
    """A sweep `a` of one trial in the storage of this home."""
    create_sweep(parse_sweep(settings(run_cap=1)), sweep_id="a", storage=default_storage())


def test_keeper_renews_the_leases_of_an_agent_that_is_held_up(single, agents, monkeypatch):
    woken = threading.Event()
    monkeypatch.setattr(leases.Leases, "renew_running", lambda self: woken.set())
    agents(lease_s=0.04).next_trial("cpu/0")
    assert woken.wait(60.0)


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


def test_trial_of_a_dead_process_is_reclaimed_before_its_lease_expires(single, clock, agents, monkeypatch):
    with subprocess.Popen(["sleep", "600"]) as process:
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: process.pid)
            owner = this_process()
        held = agents(owner=owner, clock=clock).next_trial("cpu/0")
        assert not is_dead(owner)
        process.kill()
        until(lambda: is_dead(owner))  # though nobody has reaped it, as the child of an agent may stay for long
        taken = agents(clock=clock).next_trial("cpu/0")
    assert (taken.trial_id, held.attempt, taken.attempt) == (held.trial_id, 1, 2)


def test_owner_whose_number_is_used_again_is_dead_and_one_on_another_host_never():
    host, pid, started = this_process().rsplit(":", 2)
    assert is_dead(f"{host}:{pid}:{int(started) - 1}")
    for owner in ("", "me", "a:b", "a:b:c", "other/host:1:2", "::", f"elsewhere:{pid}:0", this_process()):
        assert not is_dead(owner)


def test_lease_that_is_no_usable_time_is_refused(monkeypatch):
    for given in ("soon", "1", "nan", "1e9"):
        monkeypatch.setenv("FERSWEEP_LEASE_S", given)
        with pytest.raises(InputError, match="FERSWEEP_LEASE_S"):
            leases.lease_seconds()
    monkeypatch.setenv("FERSWEEP_LEASE_S", "5")
    assert leases.lease_seconds() == 5.0


GRID = {"method": "grid", "parameters": {"model": {"value": "simple_cnn"}, "seed": {"values": [1, 2, 3]}}}


def made(sweep_id, sweep=GRID, search="optuna"):
    create_sweep(parse_sweep(sweep), sweep_id=sweep_id, storage=default_storage())
    return open_entry(SweepEntry(sweep_id, search, None, None, 0.0))


def test_trial_is_free_then_leased_then_ended_and_free_again_once_its_lease_has_expired(agents, clock, complete):
    entry = made("a")
    clock.now = 1e12  # in the future, where no lease expires
    assert entry.remaining() == Remaining(3)
    search = agents(owner="another-host:1:1", clock=clock)
    trial = search.next_trial("cpu0")
    assert entry.remaining() == Remaining(2, leased=1)
    search.finish(trial.trial_id, complete())
    assert entry.remaining() == Remaining(2)
    clock.now = 0.0
    search.next_trial("cpu0")
    assert entry.remaining() == Remaining(2)


def test_cap_counts_where_it_is_less_than_the_grid_and_endless_and_served_sweeps_have_no_number(settings):
    assert made("capped", {**GRID, "run_cap": 2}).remaining() == Remaining(2)
    assert made("endless", settings()).remaining() == Remaining(None)
    assert made("served", search="wandb").remaining() == Remaining(None)


def test_sweep_that_hands_out_nothing_for_good_has_nothing_free(agents, clock):
    clock.now = 1e12
    for state, free in (("paused", 2), ("stopped", 0), ("cancelled", 0)):
        entry = made(state)
        agents(state, owner="another-host:1:1", clock=clock).next_trial("cpu0")
        steer(default_storage(), state, state)
        assert entry.remaining() == Remaining(free, leased=1)
