"""What is left of a sweep, in each of the states its trials can be in."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_sweep.errors import InputError
from fer_sweep.records import TrialOutcome, TrialRequest
from fer_sweep.search.entries import SweepEntry
from fer_sweep.search.optuna_embedded import OptunaSearch
from fer_sweep.search.registry import create, set_state
from fer_sweep.search.remaining import Remaining, remaining

ELSEWHERE = "another-host:1:1"
SWEEP = """\
program: fersweep
method: METHOD
metric: {name: best_val_acc, goal: maximize}
parameters:
  model: {value: simple_cnn}
  data: {value: tiny}
  batch_size: {values: [16, 32, 64]}
"""

pytestmark = pytest.mark.usefixtures("tiny_data")


def made(method: str = "grid", count: int | None = None) -> SweepEntry:
    Path("sweep.yaml").write_text(SWEEP.replace("METHOD", method))
    return create(Path("sweep.yaml"), count=count)


def agent(entry: SweepEntry, heard_of_s_ago: float = 0.0) -> OptunaSearch:
    return OptunaSearch(
        entry.id, storage=entry.database, owner=ELSEWHERE, lease_s=60.0, clock=lambda: time.time() - heard_of_s_ago
    )


def test_a_trial_is_free_then_in_hand_then_over(complete: Callable[..., TrialOutcome]) -> None:
    entry = made()
    assert remaining(entry) == Remaining(3)
    search = agent(entry)
    trial = search.next_trial("cpu0")
    assert isinstance(trial, TrialRequest)
    assert remaining(entry) == Remaining(2, in_hand=1)
    search.finish(trial.trial_id, complete())
    assert remaining(entry) == Remaining(2)
    search.next_trial("cpu0")
    search.close()  # gives up what it holds
    assert remaining(entry) == Remaining(2)


def test_a_trial_is_free_again_once_its_lease_has_run_out() -> None:
    entry = made()
    search = agent(entry, heard_of_s_ago=61.0)
    search.next_trial("cpu0")
    assert remaining(entry) == Remaining(3)
    search.close()


def test_the_cap_counts_where_it_is_less_than_the_grid() -> None:
    assert remaining(made(count=2)) == Remaining(2)


def test_where_there_is_no_end_nobody_knows_how_many() -> None:
    Path("sweep.yaml").write_text(SWEEP.replace("METHOD", "random").replace("values: [16, 32, 64]", "value: 16"))
    text = Path("sweep.yaml").read_text() + "  lr: {min: 0.001, max: 0.01}\n"
    Path("sweep.yaml").write_text(text)
    assert remaining(create(Path("sweep.yaml"))) == Remaining(None)


@pytest.mark.parametrize(("state", "free"), [("paused", 2), ("stopped", 0), ("cancelled", 0)])
def test_a_sweep_that_hands_out_nothing_for_good_has_nothing_free(state: str, free: int) -> None:
    entry = made()
    search = agent(entry)
    search.next_trial("cpu0")
    set_state(entry, state)
    assert remaining(entry) == Remaining(free, in_hand=1)
    search.close()


def test_what_a_server_hands_out_is_its_own_to_know() -> None:
    assert remaining(SweepEntry("abc", "wandb", None, None, 0.0, path="me/faces/abc")) == Remaining(None)


def test_a_sweep_that_is_gone_is_said() -> None:
    entry = made()
    with pytest.raises(InputError, match="nosuchid"):
        remaining(SweepEntry("nosuchid", "optuna", entry.storage, None, 0.0))
