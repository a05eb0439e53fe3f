"""How many agents are started for what is left of a sweep: never more than are of use, and never for ever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_sweep.pools.scaling import Change, Demand, slots_of
from fer_sweep.sweeps import Remaining


@pytest.mark.parametrize(
    ("left", "running", "waiting", "change"),
    [
        (Remaining(10), 0, 0, Change(start=4)),
        (Remaining(3), 0, 0, Change(start=2)),
        (Remaining(0), 0, 0, Change()),
        (Remaining(None), 0, 0, Change(start=4)),
        (Remaining(None), 3, 1, Change()),
        (Remaining(4, leased=4), 2, 2, Change()),
        (Remaining(2, leased=4), 2, 2, Change(withdraw=1)),
        (Remaining(0, leased=4), 2, 2, Change(withdraw=2)),
        # A node was lost with two leased trials: no agent is of use until the leases have expired.
        (Remaining(0, leased=4), 1, 0, Change()),
        (Remaining(2, leased=2), 1, 0, Change(start=1)),
        # Agents that have only just started have leased nothing yet.
        (Remaining(2, leased=0), 1, 0, Change()),
    ],
)
def test_as_many_agents_are_started_as_what_is_left_keeps_busy(
    left: Remaining, running: int, waiting: int, change: Change
) -> None:
    assert Demand(most=4, slots=2).look(left, running=running, waiting=waiting) == change


def test_trials_that_an_agent_was_not_given_start_no_other_until_more_are_left_or_one_is_lost() -> None:
    demand = Demand(most=2)
    assert demand.look(Remaining(3), running=0, waiting=0) == Change(start=2)
    demand.ended()  # such as at its --count
    assert demand.look(Remaining(3, leased=1), running=1, waiting=0) == Change()
    assert demand.look(Remaining(4), running=0, waiting=0) == Change(start=1)
    demand.ended()
    demand.lost()
    assert demand.look(Remaining(1), running=0, waiting=0) == Change(start=1)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 40), st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.lists(st.booleans(), max_size=8))
def test_every_trial_is_trained_by_no_more_agents_than_asked_for_whatever_is_lost(
    trials: int, most: int, slots: int, places: int, losses: list[bool]
) -> None:
    """Agents in little: each leases trials, and ends when there are no more for it."""
    demand, may_start = Demand(most=most, slots=slots), trials + sum(losses) + most
    left, done, waiting, starts = trials, 0, 0, 0
    running: list[int] = []
    """What each has leased."""
    while True:
        change = demand.look(Remaining(left, sum(running)), running=len(running), waiting=waiting)
        starts += change.start
        waiting += change.start - change.withdraw
        assert len(running) + waiting <= most
        assert waiting * slots < left + slots, "one more waits than is of use"
        placed = min(waiting, places - len(running))
        waiting -= placed
        running += [0] * placed
        if not running:
            break
        if sum(running) and losses and losses.pop():
            left += running.pop()
            demand.lost()
        done += sum(running)
        for number in range(len(running)):
            running[number] = min(slots, left)
            left -= running[number]
        for _ in range(running.count(0)):
            running.remove(0)
            demand.ended()
    assert (left, done) == (0, trials)
    assert starts <= may_start


@pytest.mark.parametrize(
    ("words", "gpus", "slots"),
    [(["--per-gpu=auto"], 1.0, 1), (["--per-gpu=3"], 0.5, 3), ([], 4.0, 4), (["--gpus=none"], 1.0, 2), ([], 0.0, 2)],
)
def test_slots_of_an_agent_follow_from_its_options_and_its_place(words: list[str], gpus: float, slots: int) -> None:
    assert slots_of(("agent", "abc", *words), gpus, cpus=8) == slots
    assert slots_of(("agent", "abc", *words, "--slots=3"), gpus, cpus=8) == 3
