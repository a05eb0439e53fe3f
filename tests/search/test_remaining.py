"""How many trials of a sweep remain, in each state that its trials can be in."""

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.search.database import default_storage
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.remaining import Remaining, remaining
from fer_sweep.search.storage import create_sweep, set_sweep_state

GRID = {"method": "grid", "parameters": {"model": {"value": "simple_cnn"}, "seed": {"values": [1, 2, 3]}}}


def made(sweep_id, sweep=GRID, search="optuna"):
    create_sweep(parse_sweep(sweep), sweep_id=sweep_id, storage=default_storage())
    return SweepEntry(sweep_id, search, None, None, 0.0)


def test_trial_is_free_then_leased_then_ended_and_free_again_once_its_lease_has_expired(agents, clock, complete):
    entry = made("a")
    clock.now = 1e12  # in the future, where no lease expires
    assert remaining(entry) == Remaining(3)
    search = agents(owner="another-host:1:1", clock=clock)
    trial = search.next_trial("cpu0")
    assert remaining(entry) == Remaining(2, in_hand=1)
    search.finish(trial.trial_id, complete())
    assert remaining(entry) == Remaining(2)
    clock.now = 0.0
    search.next_trial("cpu0")
    assert remaining(entry) == Remaining(2)


def test_cap_counts_where_it_is_less_than_the_grid_and_endless_and_served_sweeps_have_no_number(settings):
    assert remaining(made("capped", {**GRID, "run_cap": 2})) == Remaining(2)
    assert remaining(made("endless", settings())) == Remaining(None)
    assert remaining(made("served", search="wandb")) == Remaining(None)


def test_sweep_that_hands_out_nothing_for_good_has_nothing_free(agents, clock):
    clock.now = 1e12
    for state, free in (("paused", 2), ("stopped", 0), ("cancelled", 0)):
        entry = made(state)
        agents(state, owner="another-host:1:1", clock=clock).next_trial("cpu0")
        set_sweep_state(default_storage(), state, state)
        assert remaining(entry) == Remaining(free, in_hand=1)
