"""What every search guarantees its agents; ``harness`` runs each test for every search on every storage."""

import itertools
import math

import pytest

from fer_sweep.errors import LostTrial
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState, Wait
from tests.search.conftest import LEASE_S, take

COMPLETE = TrialOutcome(TrialState.COMPLETE)
FAILED = TrialOutcome(TrialState.FAILED, reason="RuntimeError: no kernel image is available")
PREEMPTED = TrialOutcome(TrialState.PREEMPTED, reason="the host is needed elsewhere")
PRUNED = TrialOutcome(TrialState.PRUNED, reason="hyperband")


def opened(harness, settings, *owners, **changes):
    """A sweep of these changes, and an agent for each owner."""
    sweep = harness.create(**settings(**changes))
    return sweep, *(harness.agent(sweep, owner) for owner in owners)


def gives_nothing(search) -> bool:
    """Whether there is no trial while others run: a search may end its agents, or let them wait."""
    return not isinstance(search.next_trial("cpu/0"), TrialRequest)


def owes(harness, what: str) -> None:
    if what in harness.cannot:
        pytest.skip(harness.cannot[what])


def test_each_trial_is_handed_out_once_with_its_configuration(harness, settings):
    augment = {"parameters": {"shift": {"values": [0.25]}, "flip": {"value": False}}}
    parameters = {"model": {"value": "vit"}, "lr": {"min": 1e-4, "max": 1e-1}, "augment": augment}
    _, first, second = opened(harness, settings, "a", "b", parameters=parameters)
    requests = [take(first), take(second), take(first), take(second)]
    assert len({request.trial_id for request in requests}) == 4
    for request in requests:
        lr, config = request.config.lr, request.config
        assert request.attempt == 1
        assert request.parameters == {"model": "vit", "lr": lr, "augment.shift": 0.25, "augment.flip": False}
        assert 1e-4 <= lr <= 1e-1
        assert (config.model, config.augment.shift, config.augment.flip) == ("vit", 0.25, False)


def test_run_cap_counts_trials_of_all_agents_in_any_state_and_none_that_ended_comes_again(harness, settings):
    sweep, first, second = opened(harness, settings, "a", "b", run_cap=3)
    first.finish(take(first).trial_id, FAILED)
    running = [take(first), take(second)]
    assert gives_nothing(first)
    assert gives_nothing(second)
    assert harness.state(sweep) == "running"
    for search, request, outcome in zip((first, second), running, (PRUNED, COMPLETE), strict=True):
        search.finish(request.trial_id, outcome)
    harness.expire_leases()
    assert first.next_trial("cpu/0") is None
    assert [record.state.value for record in first.records()] == ["failed", "pruned", "complete"]
    assert harness.state(sweep) == "finished"


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_finite_space_is_exhausted_without_repeats_and_without_untrainable_configurations(harness, settings, method):
    if method != "grid":
        owes(harness, "exhaust")
    parameters = {"model": {"value": "vit"}, "dim": {"values": [64, 96]}, "head_dim": {"values": [32, 48]}}
    parameters["patch_size"] = {"values": [7, 8]}  # of images of 48x48 pixels
    sweep, search = opened(harness, settings, "a", method=method, parameters=parameters)
    given = []
    while request := search.next_trial("cpu/0"):
        given.append((request.config.dim, request.config.head_dim))
        search.report(request.trial_id, 1, {"val_acc": 0.5, "best_val_acc": 0.5})
        search.finish(request.trial_id, COMPLETE)
    assert (given if method == "grid" else sorted(given)) == [(64, 32), (96, 32), (96, 48)]
    assert harness.state(sweep) == "finished"


@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_paused_or_stopped_sweep_hands_out_nothing_until_it_is_resumed(harness, settings, state):
    sweep, search, dead, other = opened(harness, settings, "a", "dead", "other")
    running, stale = take(search), take(dead)
    harness.steer(sweep, state)
    harness.expire_leases()
    given = other.next_trial("cpu/0")
    assert isinstance(given, Wait) if state == "paused" else given is None
    assert search.report(running.trial_id, 1, {"val_acc": 0.5}) is None
    search.finish(running.trial_id, COMPLETE)
    assert harness.state(sweep) == ("paused" if state == "paused" else harness.stopped)
    harness.steer(sweep, "running")
    assert take(other).trial_id == stale.trial_id
    assert take(search).trial_id not in (running.trial_id, stale.trial_id)


def test_cancelled_sweep_stops_running_trials_even_within_an_epoch_and_hands_out_nothing(harness, settings):
    sweep, search, dead = opened(harness, settings, "a", "dead")
    running, _ = take(search), take(dead)
    assert search.report(running.trial_id, 1, {}) is None
    harness.steer(sweep, "cancelled")
    harness.expire_leases()
    assert search.report(running.trial_id, 1, {}) is StopReason.PREEMPTED
    assert search.report(running.trial_id, 1, {"val_acc": 0.5}) is StopReason.PREEMPTED
    search.finish(running.trial_id, PREEMPTED)
    assert search.next_trial("cpu/0") is None
    assert harness.state(sweep) == "cancelled"


def test_records_show_every_trial_with_its_latest_metrics_whether_finite_or_not(harness, settings, complete):
    sweep, search = opened(harness, settings, "a")
    done, failed, running = take(search), take(search), take(search)
    search.report(done.trial_id, 1, {"epoch": 1, "val_acc": 0.3})
    harness.clock.now += 5
    search.finish(done.trial_id, complete(best_val_acc=0.61, train_val_gap=0.2, macro_f1=math.nan))
    search.finish(failed.trial_id, FAILED)
    latest = {"epoch": 2, "val_acc": 0.4, "train_loss": math.nan, "val_loss": math.inf}
    search.report(running.trial_id, 1, {**latest, "epoch": 1, "val_acc": 0.3})
    search.report(running.trial_id, 2, latest)

    def records():
        return {record.trial_id: record for record in harness.agent(sweep, "reader").records()}

    found = records()
    assert list(found) == [done.trial_id, failed.trial_id, running.trial_id]
    record = found[done.trial_id]
    assert (record.state, record.attempt) == (TrialState.COMPLETE, 1)
    assert record.config == done.config.model_dump(mode="json")
    assert record.parameters == done.parameters
    assert (record.metrics["best_val_acc"], record.metrics["train_val_gap"]) == (0.61, 0.2)
    assert record.result.best_val_acc == 0.61
    assert math.isnan(record.result.macro_f1)
    assert record.ended_at - record.started_at == 5
    assert (found[failed.trial_id].state, found[failed.trial_id].reason) == (TrialState.FAILED, FAILED.reason)
    assert found[running.trial_id].metrics == pytest.approx(latest, nan_ok=True)
    assert (found[running.trial_id].state, found[running.trial_id].ended_at) == (TrialState.RUNNING, None)

    harness.clock.now += 5
    search.finish(done.trial_id, complete(best_val_acc=0.7))
    again = records()[done.trial_id]
    assert (again.result.best_val_acc, again.ended_at) == (0.61, record.ended_at), "the first end counts"


def test_preempted_trial_is_resumed_before_a_new_one_starts(harness, settings):
    _, first, second = opened(harness, settings, "a", "b")
    request = take(first)
    first.report(request.trial_id, 1, {"val_acc": 0.5})
    first.finish(request.trial_id, PREEMPTED)
    assert first.records()[0].state is TrialState.PREEMPTED
    again = take(second)
    assert (again.trial_id, again.config, again.parameters) == (request.trial_id, request.config, request.parameters)
    assert again.attempt == 2
    second.finish(again.trial_id, COMPLETE)
    record = second.records()[0]
    assert (record.state, record.attempt, record.reason) == (TrialState.COMPLETE, 2, None)
    assert take(second).trial_id != request.trial_id


def test_trial_is_reclaimed_when_its_lease_expires_and_its_former_owner_is_refused(harness, settings):
    _, silent, other = opened(harness, settings, "silent", "other", run_cap=1)
    request = take(silent)
    assert gives_nothing(other), "the first agent's lease holds"
    harness.expire_leases()
    again = take(other)
    assert (again.trial_id, again.attempt, again.config) == (request.trial_id, 2, request.config)
    for trial_id, metrics in itertools.product((request.trial_id, "7", "-1", "x", ""), ({"val_acc": 0.9}, {})):
        with pytest.raises(LostTrial):
            silent.report(trial_id, 1, metrics)
    with pytest.raises(LostTrial):
        silent.finish(request.trial_id, COMPLETE)
    other.report(again.trial_id, 1, {"val_acc": 0.4})
    other.finish(again.trial_id, COMPLETE)
    assert other.records()[0].metrics == {"val_acc": 0.4}


def test_trial_of_a_closed_agent_is_reclaimed_at_once(harness, settings):
    _, first, second = opened(harness, settings, "a", "b", run_cap=1)
    request = take(first)
    first.close()
    assert (take(second).trial_id, request.attempt) == (request.trial_id, 1)


def test_agent_whose_lease_expired_is_not_handed_the_trial_that_it_still_runs(harness, settings):
    _, search = opened(harness, settings, "a", run_cap=1)
    request = take(search)
    harness.expire_leases()
    assert gives_nothing(search)
    search.report(request.trial_id, 1, {"val_acc": 0.5})
    search.finish(request.trial_id, COMPLETE)
    with pytest.raises(LostTrial):
        search.report(request.trial_id, 2, {"val_acc": 0.5})


def test_reports_and_heartbeats_renew_the_lease(harness, settings):
    _, search, other = opened(harness, settings, "a", "b", run_cap=1)
    request = take(search)
    for epoch, metrics in enumerate(({"val_acc": 0.5}, {}, {"val_acc": 0.6}, {}), start=1):
        harness.clock.now += 0.9 * LEASE_S
        search.report(request.trial_id, epoch, metrics)
        assert gives_nothing(other)
    search.finish(request.trial_id, COMPLETE)


def test_the_worse_trial_is_pruned_but_not_by_an_epoch_reported_again_which_replaces_the_first(harness, settings):
    rule = {"type": "hyperband", "min_iter": 1, "eta": 3}
    metric = {"name": "val_acc", "goal": "maximize"}
    _, search = opened(harness, settings, "a", metric=metric, early_terminate=rule)
    for value in (0.5, 0.6):
        request = take(search)
        assert search.report(request.trial_id, 1, {"val_acc": value}) is None
        search.finish(request.trial_id, COMPLETE)
    worse = take(search)
    assert search.report(worse.trial_id, 1, {"val_acc": 0.1}) is StopReason.PRUNED
    search.finish(worse.trial_id, PRUNED)
    owes(harness, "replace")
    request = take(search)
    assert search.report(request.trial_id, 1, {"val_acc": 0.9}) is None
    search.finish(request.trial_id, PREEMPTED)
    again = take(search)
    assert search.report(again.trial_id, 1, {"val_acc": 0.1}) is None
    assert search.records()[-1].metrics == {"val_acc": 0.1}
    assert search.report(again.trial_id, 2, {"val_acc": 0.1}) is StopReason.PRUNED


@pytest.mark.parametrize(("goal", "values"), [("maximize", (0.5, 0.8)), ("minimize", (0.8, 0.5))])
def test_reaching_the_target_finishes_the_sweep_but_not_the_running_trials(harness, settings, complete, goal, values):
    metric = {"name": "val_acc", "goal": goal, "target": sum(values) / 2}
    sweep, search = opened(harness, settings, "a", metric=metric)
    best, other = take(search), take(search)
    search.report(best.trial_id, 1, {"val_acc": values[0]})
    assert harness.state(sweep) == "running"
    assert search.report(best.trial_id, 2, {"val_acc": values[1]}) is None
    assert harness.state(sweep) == "finished"
    assert search.next_trial("cpu/0") is None
    assert search.report(other.trial_id, 1, {"val_acc": values[0]}) is None
    search.finish(other.trial_id, COMPLETE)
    search.finish(best.trial_id, COMPLETE)

    sweep, search = opened(harness, settings, "a", metric={**metric, "name": "macro_f1"})
    for value, state in zip(values, ("running", "finished"), strict=True):
        search.finish(take(search).trial_id, complete(macro_f1=value))
        assert harness.state(sweep) == state, "a metric of the result counts at the end"
