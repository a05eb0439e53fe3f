"""Sweeps that freeze-thaw searches: their trials are trained in turns, paused and resumed, and none is lost."""

import math

import pytest

from fer_sweep.records import StopReason, TrialOutcome, TrialState
from fer_sweep.search.turns import SHORTEST_TURN, Pace
from fer_sweep.store.trials import ledger_of
from tests.search.conftest import Clock
from tests.support.records import make_result

on_both = pytest.mark.parametrize("harness", [("optuna", "sqlite"), ("optuna", "postgres")], indirect=True)
on_one = pytest.mark.parametrize("harness", [("optuna", "sqlite")], indirect=True)
EPOCHS, EPOCH_S = 5, 10.0
PAUSED = TrialOutcome(TrialState.PAUSED, make_result())


class Slot:
    """One slot of an agent; trains in no time, the better the nearer the learning rate is to 0.01."""

    def __init__(self, search, clock, name="cpu/0"):
        self.search, self.clock, self.name = search, clock, name
        self.turns: list[tuple[str, int, str]] = []
        """Trial, its last epoch, and how the turn ended."""
        self.epochs: dict[str, int] = {}
        """That each trial has got here; another host has its other epochs."""

    def turn(self, *, finishes=True):
        """Train the search's next trial until it pauses or ends; returns its id, or what it got in place of one."""
        request = self.search.next_trial(self.name)
        trial = getattr(request, "trial_id", None)
        if trial is None:
            return request
        state = TrialState.COMPLETE
        while self.epochs.get(trial, 0) < request.config.epochs:
            epoch = self.epochs[trial] = self.epochs.get(trial, 0) + 1
            self.clock.now += EPOCH_S
            if reason := self.search.report(trial, epoch, {"val_acc": value_of(request.config.lr, epoch)}):
                assert reason is StopReason.PAUSED
                state = TrialState.PAUSED
                break
        self.turns.append((trial, self.epochs[trial], str(state)))
        if finishes:
            self.search.finish(trial, TrialOutcome(state, result(self.epochs[trial])))
        return trial

    def work(self):
        """Train until there is nothing left."""
        while isinstance(self.turn(), str):
            pass


def value_of(lr, epoch):
    return (1 - 0.8 / epoch) * math.exp(-((math.log10(lr) + 2) ** 2))


def result(epochs):
    return make_result(epochs=epochs, best_epoch=epochs)


@pytest.fixture
def sweep(harness, settings):
    """Creates a sweep of short trials."""

    def create(**changes):
        metric = {"name": "val_acc", "goal": "maximize"}
        parameters = {**settings()["parameters"], "epochs": {"value": EPOCHS}}
        return harness.create(
            **settings(**{"method": "bayes", "metric": metric, "run_cap": 8, "parameters": parameters, **changes})
        )

    return create


def states(search):
    return {record.trial_id: record.state for record in search.records()}


def best(search):
    return max(search.records(), key=lambda record: record.metrics.get("val_acc", value_of(record.config["lr"], 1)))


def paused_trials(harness, sweep_id):
    with ledger_of(harness.agent(sweep_id, "reader").database, sweep_id) as ledger:
        return [str(row["number"]) for row in ledger.paused()]


@on_both
def test_each_turn_is_the_next_epochs_of_one_trial_and_the_sweep_ends_once_its_best_is_complete(harness, sweep):
    sweep_id = sweep()
    slot = Slot(search := harness.agent(sweep_id, "a"), harness.clock)
    slot.work()
    assert harness.state(sweep_id) == "finished"
    assert [trial for trial, epoch, _ in slot.turns if epoch == SHORTEST_TURN][:6] == list("012345")
    again = [first for first, then in zip(slot.turns, slot.turns[1:], strict=False) if first[0] == then[0]]
    assert not again, "a trial that paused was resumed at once"
    found = states(search)
    assert len(found) == 8
    assert set(found.values()) == {TrialState.COMPLETE, TrialState.PRUNED}
    records = {record.trial_id: record for record in search.records()}
    peaks = {trial: value_of(record.config["lr"], slot.epochs[trial]) for trial, record in records.items()}
    assert found[max(peaks, key=peaks.get)] is TrialState.COMPLETE
    assert sum(slot.epochs.values()) < 8 * EPOCHS, "nothing was saved"
    for trial, record in records.items():
        assert record.result.epochs == slot.epochs[trial]
        assert (record.ended_at is not None, record.attempt) == (True, sum(turn[0] == trial for turn in slot.turns))
        if record.state is TrialState.PRUNED:
            assert record.reason == "paused, and the sweep ended before its next turn"


@on_both
def test_two_agents_never_train_the_same_trial_at_once_and_one_that_is_killed_in_a_turn_loses_no_trial(harness, sweep):
    sweep_id = sweep()
    first, dead, third = (Slot(harness.agent(sweep_id, owner), harness.clock) for owner in ("a", "dead", "c"))
    for _ in range(4):
        first.turn()
        third.epochs = first.epochs
        third.turn()
    lost = dead.turn(finishes=False)
    assert lost not in paused_trials(harness, sweep_id)
    assert lost != first.turn()
    harness.expire_leases()
    first.epochs |= third.epochs | dead.epochs
    first.epochs[lost] -= 1  # its checkpoint is older
    assert first.turn() == lost, "a trial whose agent is dead comes first"
    first.work()
    found = states(first.search)
    assert (len(found), set(found.values())) == (8, {TrialState.COMPLETE, TrialState.PRUNED})
    assert harness.state(sweep_id) == "finished"


@on_one
@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_running_trials_of_a_sweep_that_hands_out_nothing_finish_and_paused_ones_stay_paused(harness, sweep, state):
    sweep_id = sweep()
    slot, other = (Slot(harness.agent(sweep_id, owner), harness.clock) for owner in "ab")
    slot.turn()
    request = other.search.next_trial("cpu/0")
    harness.steer(sweep_id, state)
    for epoch in range(1, EPOCHS + 1):
        assert other.search.report(request.trial_id, epoch, {"val_acc": 0.1}) is None
    other.search.finish(request.trial_id, TrialOutcome(TrialState.COMPLETE, result(EPOCHS)))
    assert not isinstance(slot.turn(), str)
    assert paused_trials(harness, sweep_id) == ["0"]
    harness.steer(sweep_id, "running")
    slot.work()
    assert harness.state(sweep_id) == "finished"


@on_one
def test_a_cancelled_sweep_stops_its_running_trial_and_resumes_none(harness, sweep):
    sweep_id = sweep()
    slot = Slot(harness.agent(sweep_id, "a"), harness.clock)
    slot.turn()
    request = slot.search.next_trial("cpu/0")
    harness.steer(sweep_id, "cancelled")
    assert slot.search.report(request.trial_id, SHORTEST_TURN, {"val_acc": 0.5}) is StopReason.PREEMPTED
    slot.search.finish(request.trial_id, TrialOutcome(TrialState.PREEMPTED))
    assert slot.turn() is None


@on_one
def test_a_reached_target_prunes_what_is_paused_and_what_was_about_to_pause(harness, sweep):
    sweep_id = sweep(metric={"name": "val_acc", "goal": "maximize", "target": 0.99})
    slot, late, lucky = (Slot(harness.agent(sweep_id, owner), harness.clock) for owner in "abc")
    slot.turn()
    late.turn(finishes=False)
    request = lucky.search.next_trial("cpu/0")
    lucky.search.report(request.trial_id, 1, {"val_acc": 0.995})
    assert harness.state(sweep_id) == "finished"
    late.search.finish("1", PAUSED)
    assert states(slot.search) == {"0": TrialState.PRUNED, "1": TrialState.PRUNED, "2": TrialState.RUNNING}


@on_one
def test_once_the_budget_is_spent_only_the_best_trial_is_trained_to_its_end(harness, sweep):
    sweep_id = sweep()
    slot = Slot(harness.agent(sweep_id, "a"), harness.clock)
    for _ in range(4):
        slot.turn()
    with ledger_of(slot.search.database, sweep_id, write=True) as ledger:
        ledger.change_settings(ledger.settings().file, budget_epochs=8, steered=None)
    leader = best(slot.search).trial_id
    turns = len(slot.turns)
    slot.work()
    assert {trial for trial, *_ in slot.turns[turns:]} == {leader}
    assert [trial for trial, state in states(slot.search).items() if state is TrialState.COMPLETE] == [leader]
    assert len(states(slot.search)) == 4


@on_one
def test_where_time_gets_short_for_the_best_trial_it_has_the_next_turns(harness, sweep):
    left = [math.inf]
    slot = Slot(harness.agent(sweep(), "a", time_left_s=lambda: left[0]), harness.clock)
    for _ in range(4):
        slot.turn()
    leader, left[0] = best(slot.search).trial_id, 0.0
    assert slot.turn() == leader
    assert states(slot.search)[leader] is TrialState.COMPLETE, "and gives none away before it is complete"


@on_one
def test_an_agent_whose_trials_may_not_pause_trains_each_to_its_end(harness, sweep):
    slot = Slot(harness.agent(sweep(), "a", may_pause=False), harness.clock)
    request = slot.search.next_trial("elsewhere")
    assert request.until is None
    slot.turn()
    slot.turn()
    assert slot.turns == [("1", EPOCHS, "complete"), ("2", EPOCHS, "complete")]


@on_one
def test_a_trial_whose_checkpoint_is_elsewhere_stays_paused_unless_it_is_the_best_and_nothing_runs(harness, sweep):
    sweep_id = sweep(run_cap=3)
    there = Slot(harness.agent(sweep_id, "a"), harness.clock)
    for _ in range(3):
        there.turn()
    leader = best(there.search).trial_id
    here = Slot(harness.agent(sweep_id, "b", has_checkpoint=lambda trial: False), harness.clock)
    here.work()
    assert here.turns == [(leader, EPOCHS, "complete")], "from its first epoch"
    assert sorted(states(here.search).values()) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]


def test_a_turn_is_two_epochs_or_long_enough_that_pauses_take_a_twentieth_of_the_time():
    clock = Clock()
    pace = Pace(clock)
    assert pace.begin(0, 0) == SHORTEST_TURN
    for epoch in range(1, 4):
        clock.now += 10.0
        assert pace.is_over(0, epoch) is (epoch >= SHORTEST_TURN)
    pace.pause("cpu/0")
    clock.now += 2.0
    pace.slot_is_free("cpu/0")
    pace.slot_is_free("cpu/0")  # of no turn
    assert pace.turn == 8, "two seconds to save and two to load, of 80"
    assert pace.begin(0, 3) == 11
    assert (pace.end_of(0, 4), pace.end_of(0, 11), pace.end_of(7, 2)) == (11, 12, 10)
    clock.now += 1000.0
    assert not pace.is_over(0, 4), "the time before a trial's first epoch is no epoch's"
    assert pace.seconds_to_finish(0, 5) == 5 * 10 + 8 * 10 + 2 * 4
    assert pace.extend(0, 11) == 19
