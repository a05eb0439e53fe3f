"""How many trials of a sweep remain, in each state that its trials can be in."""

import time
from contextlib import closing
from pathlib import Path

import pytest
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.registry import create, set_state
from fer_sweep.search.remaining import Remaining, remaining

from fer_sweep.errors import InputError
from fer_sweep.search.embedded import OptunaSearch

SWEEP = """\
program: fersweep
method: METHOD
metric: {name: best_val_acc, goal: maximize}
parameters:
  model: {value: simple_cnn}
  batch_size: {values: [16, 32, 64]}
"""


def made(method="grid", count=None, more=""):
    Path("sweep.yaml").write_text(SWEEP.replace("METHOD", method) + more)
    return create(Path("sweep.yaml"), count=count)


def agent(entry, silent_s=0.0):
    """One of another host, whose reports all came so long ago."""
    clock = lambda: time.time() - silent_s  # noqa: E731
    return closing(OptunaSearch(entry.id, storage=entry.database, owner="another-host:1:1", lease_s=3600, clock=clock))


def test_trial_is_free_then_leased_then_ended(complete):
    entry = made()
    assert remaining(entry) == Remaining(3)
    with agent(entry) as search:
        trial = search.next_trial("cpu0")
        assert remaining(entry) == Remaining(2, in_hand=1)
        search.finish(trial.trial_id, complete())
        assert remaining(entry) == Remaining(2)
        search.next_trial("cpu0")
    assert remaining(entry) == Remaining(2), "closing gives up what the agent holds"


def test_trial_is_free_again_once_its_lease_has_expired():
    entry = made()
    with agent(entry, silent_s=3601.0) as search:
        search.next_trial("cpu0")
        assert remaining(entry) == Remaining(3)


def test_cap_counts_where_it_is_less_than_the_grid_and_an_endless_space_has_no_number():
    assert remaining(made(count=2)) == Remaining(2)
    assert remaining(made("random", more="  lr: {min: 0.001, max: 0.01}\n")) == Remaining(None)


@pytest.mark.parametrize(("state", "free"), [("paused", 2), ("stopped", 0), ("cancelled", 0)])
def test_sweep_that_hands_out_nothing_for_good_has_nothing_free(state, free):
    entry = made()
    with agent(entry) as search:
        search.next_trial("cpu0")
        set_state(entry, state)
        assert remaining(entry) == Remaining(free, in_hand=1)


def test_server_does_not_say_what_remains_and_an_unknown_sweep_is_refused():
    assert remaining(SweepEntry("abc", "wandb", None, None, 0.0, path="me/faces/abc")) == Remaining(None)
    entry = made()
    with pytest.raises(InputError, match="nosuchid"):
        remaining(SweepEntry("nosuchid", "optuna", entry.storage, None, 0.0))
