"""What every search owes its agents. ``harness`` runs each test once for every engine in conftest.HARNESSES."""

import itertools

import pytest

from fer_sweep.errors import LostTrial
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState, Wait

COMPLETE = TrialOutcome(TrialState.COMPLETE)
FAILED = TrialOutcome(TrialState.FAILED, reason="RuntimeError: no kernel image is available")
PREEMPTED = TrialOutcome(TrialState.PREEMPTED, reason="the host is needed elsewhere")


_numbers = itertools.count(1)


def take(search) -> TrialRequest:
    """A trial for a slot of its own: a slot runs one trial at a time."""
    request = search.next_trial(f"cpu/{next(_numbers)}")
    assert isinstance(request, TrialRequest), request
    return request


def gives_nothing(search) -> bool:
    """Whether there is no trial while others run: an engine may end its agents, or keep them for what comes back."""
    return not isinstance(search.next_trial("cpu/0"), TrialRequest)


def owes(harness, what: str) -> None:
    if what in harness.cannot:
        pytest.skip(harness.cannot[what])


def test_a_trial_is_handed_out_once_with_its_configuration(harness, settings):
    sweep = harness.create(**settings())
    first, second = harness.agent(sweep, "a"), harness.agent(sweep, "b")
    requests = [take(first), take(second), take(first), take(second)]
    assert len({request.trial_id for request in requests}) == 4
    assert [request.attempt for request in requests] == [1, 1, 1, 1]
    for request in requests:
        assert request.parameters.keys() == {"model", "lr"}
        assert request.config.lr == request.parameters["lr"]
        assert 1e-4 <= request.config.lr <= 1e-1
        assert request.config.model == "simple_cnn"


def test_nested_and_dotted_parameters_reach_the_config(harness, settings):
    augment = {"parameters": {"shift": {"values": [0.25]}, "flip": {"value": False}}}
    sweep = harness.create(**settings(parameters={"model": {"value": "vit"}, "augment": augment}))
    request = take(harness.agent(sweep, "a"))
    assert request.parameters == {"model": "vit", "augment.shift": 0.25, "augment.flip": False}
    assert (request.config.augment.shift, request.config.augment.flip) == (0.25, False)


def test_run_cap_counts_trials_of_all_agents_in_any_state(harness, settings):
    sweep = harness.create(**settings(run_cap=3))
    first, second = harness.agent(sweep, "a"), harness.agent(sweep, "b")
    failed = take(first)
    first.finish(failed.trial_id, TrialOutcome(TrialState.FAILED, reason="out of memory"))
    running = [take(first), take(second)]
    assert gives_nothing(first)
    assert gives_nothing(second)
    assert harness.state(sweep) == "running"
    for search, request in zip((first, second), running, strict=True):
        search.finish(request.trial_id, COMPLETE)
    assert first.next_trial("cpu/0") is None
    assert harness.state(sweep) == "finished"


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_a_finite_space_is_walked_once_and_then_exhausted(harness, settings, method):
    if method != "grid":
        owes(harness, "exhaust")
    parameters = {"model": {"value": "simple_cnn"}, "channels": {"values": [8, 16]}, "hidden": {"values": [32, 64]}}
    sweep = harness.create(**settings(method=method, parameters=parameters))
    search = harness.agent(sweep, "a")
    seen = set()
    for _ in range(4):
        request = take(search)
        seen.add((request.config.channels, request.config.hidden))
        search.report(request.trial_id, 1, {"val_acc": 0.5, "best_val_acc": 0.5})
        search.finish(request.trial_id, COMPLETE)
    assert len(seen) == 4
    assert search.next_trial("cpu/0") is None
    assert harness.state(sweep) == "finished"


def test_pause_makes_agents_wait_and_resume_lets_them_go_on(harness, settings):
    sweep = harness.create(**settings())
    search = harness.agent(sweep, "a")
    running = take(search)
    harness.steer(sweep, "paused")
    assert isinstance(search.next_trial("cpu/0"), Wait)
    assert search.report(running.trial_id, 1, {"val_acc": 0.5}) is None
    search.finish(running.trial_id, COMPLETE)
    harness.steer(sweep, "running")
    assert take(search).trial_id != running.trial_id


def test_stop_ends_agents_but_lets_running_trials_finish_and_can_be_resumed(harness, settings):
    sweep = harness.create(**settings())
    search = harness.agent(sweep, "a")
    running = take(search)
    harness.steer(sweep, "stopped")
    assert search.next_trial("cpu/0") is None
    assert search.report(running.trial_id, 1, {"val_acc": 0.5}) is None
    search.finish(running.trial_id, COMPLETE)
    assert harness.state(sweep) == harness.stopped
    harness.steer(sweep, "running")
    take(search)


def test_cancel_reaches_running_trials_in_the_middle_of_an_epoch(harness, settings):
    sweep = harness.create(**settings())
    search = harness.agent(sweep, "a")
    running = take(search)
    assert search.report(running.trial_id, 1, {}) is None
    harness.steer(sweep, "cancelled")
    assert search.report(running.trial_id, 1, {}) is StopReason.PREEMPTED
    assert search.report(running.trial_id, 1, {"val_acc": 0.5}) is StopReason.PREEMPTED
    search.finish(running.trial_id, PREEMPTED)
    assert search.next_trial("cpu/0") is None
    assert harness.state(sweep) == "cancelled"


def test_records_show_every_trial_with_its_latest_metrics(harness, settings, complete):
    sweep = harness.create(**settings())
    search = harness.agent(sweep, "a")
    done, failed, running = take(search), take(search), take(search)
    search.report(done.trial_id, 1, {"epoch": 1, "val_acc": 0.3})
    harness.wait(5)
    search.finish(done.trial_id, complete(best_val_acc=0.61, train_val_gap=0.2))
    search.finish(failed.trial_id, TrialOutcome(TrialState.FAILED, reason="CUDA out of memory"))
    search.report(running.trial_id, 1, {"epoch": 1, "val_acc": 0.3})
    search.report(running.trial_id, 2, {"epoch": 2, "val_acc": 0.4})

    records = {record.trial_id: record for record in harness.agent(sweep, "reader").records()}
    assert list(records) == [done.trial_id, failed.trial_id, running.trial_id]
    record = records[done.trial_id]
    assert (record.state, record.attempt) == (TrialState.COMPLETE, 1)
    assert record.config == done.config.model_dump(mode="json")
    assert record.parameters == done.parameters
    assert (record.metrics["best_val_acc"], record.metrics["train_val_gap"]) == (0.61, 0.2)
    assert record.result is not None
    assert record.result.best_val_acc == 0.61
    assert record.ended_at - record.started_at == 5
    assert (records[failed.trial_id].state, records[failed.trial_id].reason) == (
        TrialState.FAILED,
        "CUDA out of memory",
    )
    assert records[running.trial_id].metrics == {"epoch": 2, "val_acc": 0.4}
    assert (records[running.trial_id].state, records[running.trial_id].ended_at) == (TrialState.RUNNING, None)


def test_values_that_are_not_finite_survive(harness, settings, complete):
    sweep = harness.create(**settings())
    search = harness.agent(sweep, "a")
    request = take(search)
    search.report(request.trial_id, 1, {"train_loss": float("nan"), "val_loss": float("inf")})
    metrics = search.records()[0].metrics
    assert metrics["train_loss"] != metrics["train_loss"]
    assert metrics["val_loss"] == float("inf")
    search.finish(request.trial_id, complete(best_val_acc=float("nan")))
    assert search.records()[0].result.best_val_acc != 0
    take(search)


def test_a_preempted_trial_goes_on_before_a_new_one_starts(harness, settings):
    sweep = harness.create(**settings())
    first, second = harness.agent(sweep, "a"), harness.agent(sweep, "b")
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


def test_pruned_and_failed_trials_are_never_handed_out_again(harness, settings):
    sweep = harness.create(**settings(run_cap=2))
    search = harness.agent(sweep, "a")
    search.finish(take(search).trial_id, TrialOutcome(TrialState.PRUNED, reason="hyperband"))
    search.finish(take(search).trial_id, TrialOutcome(TrialState.FAILED, reason="diverged"))
    harness.let_leases_run_out()
    assert search.next_trial("cpu/0") is None
    assert [record.state for record in search.records()] == [TrialState.PRUNED, TrialState.FAILED]


def test_a_trial_whose_failure_is_taken_back_is_tried_again_once(harness, settings):
    sweep = harness.create(**settings(run_cap=2))
    bad, good = harness.agent(sweep, "bad"), harness.agent(sweep, "good")
    failed, other = take(bad), take(good)
    bad.report(failed.trial_id, 1, {"val_loss": 0.5})
    bad.finish(failed.trial_id, FAILED)
    bad.finish(failed.trial_id, TrialOutcome(TrialState.PREEMPTED, reason="failed in slot gpu0, which is closed"))
    record = next(record for record in good.records() if record.trial_id == failed.trial_id)
    assert (record.state, record.ended_at) == (TrialState.PREEMPTED, None)
    assert "gpu0" in record.reason
    good.finish(other.trial_id, COMPLETE)
    again = take(good)
    assert (again.trial_id, again.attempt, again.config) == (failed.trial_id, 2, failed.config)
    with pytest.raises(LostTrial):
        bad.finish(failed.trial_id, PREEMPTED)
    good.finish(again.trial_id, FAILED)
    good.finish(again.trial_id, PREEMPTED)
    assert good.next_trial("cpu/0") is None
    assert next(r for r in good.records() if r.trial_id == failed.trial_id).state is TrialState.FAILED
    assert harness.state(sweep) == "finished"


def test_a_silent_agents_trial_is_taken_over_and_its_late_words_are_refused(harness, settings):
    sweep = harness.create(**settings(run_cap=1))
    silent, other = harness.agent(sweep, "silent"), harness.agent(sweep, "other")
    request = take(silent)
    assert gives_nothing(other), "the trial is still the first agent's"
    harness.let_leases_run_out()
    again = take(other)
    assert (again.trial_id, again.attempt, again.config) == (request.trial_id, 2, request.config)
    with pytest.raises(LostTrial):
        silent.report(request.trial_id, 1, {"val_acc": 0.9})
    with pytest.raises(LostTrial):
        silent.report(request.trial_id, 1, {})
    with pytest.raises(LostTrial):
        silent.finish(request.trial_id, COMPLETE)
    other.report(again.trial_id, 1, {"val_acc": 0.4})
    other.finish(again.trial_id, COMPLETE)
    assert other.records()[0].metrics == {"val_acc": 0.4}


@pytest.mark.parametrize("state", ["paused", "stopped", "cancelled"])
def test_a_dead_agents_trial_is_handed_out_only_while_the_sweep_runs(harness, settings, state):
    sweep = harness.create(**settings(run_cap=1))
    dead, other = harness.agent(sweep, "dead"), harness.agent(sweep, "other")
    request = take(dead)
    harness.steer(sweep, state)
    harness.let_leases_run_out()
    given = other.next_trial("cpu/0")
    assert isinstance(given, Wait) if state == "paused" else given is None
    if state != "cancelled":
        harness.steer(sweep, "running")
        assert take(other).trial_id == request.trial_id


def test_an_agent_held_up_past_its_lease_is_not_handed_the_trial_it_still_runs(harness, settings):
    sweep = harness.create(**settings(run_cap=1))
    search = harness.agent(sweep, "a")
    request = take(search)
    harness.let_leases_run_out()
    assert gives_nothing(search)
    search.report(request.trial_id, 1, {"val_acc": 0.5})
    search.finish(request.trial_id, COMPLETE)
    with pytest.raises(LostTrial):
        search.report(request.trial_id, 2, {"val_acc": 0.5})


@pytest.mark.parametrize("metrics", [{"val_acc": 0.5}, {}])
def test_reports_keep_a_trial_its_agents_own(harness, settings, metrics):
    sweep = harness.create(**settings(run_cap=1))
    search, other = harness.agent(sweep, "a"), harness.agent(sweep, "b")
    request = take(search)
    for epoch in range(1, 6):
        harness.wait(harness.lease_s * 0.9)
        search.report(request.trial_id, epoch, metrics)
        assert gives_nothing(other)
    search.finish(request.trial_id, COMPLETE)


def test_an_unknown_trial_is_refused(harness, settings):
    search = harness.agent(harness.create(**settings()), "a")
    for trial_id in ("0", "7", "-1", "x", ""):
        with pytest.raises(LostTrial):
            search.report(trial_id, 1, {"val_acc": 0.5})


def run(search, values) -> StopReason | None:
    """One trial that reports these values of val_acc; returns what the last report said."""
    request = take(search)
    said = None
    for epoch, value in enumerate(values, start=1):
        said = search.report(request.trial_id, epoch, {"val_acc": value})
        if said:
            search.finish(request.trial_id, TrialOutcome(TrialState.PRUNED, reason="hyperband"))
            return said
    search.finish(request.trial_id, COMPLETE)
    return said


def test_hyperband_stops_the_worse_trials_at_the_bands(harness, settings):
    rule = {"type": "hyperband", "min_iter": 2, "eta": 2}
    metric = {"name": "val_acc", "goal": "maximize"}
    sweep = harness.create(**settings(metric=metric, early_terminate=rule))
    search = harness.agent(sweep, "a")
    assert run(search, [0.1, 0.2]) is None, "a single trial is never stopped"
    assert run(search, [0.1, 0.5, 0.6]) is None
    assert run(search, [0.9, 0.1]) is StopReason.PRUNED
    assert run(search, [0.1, 0.6]) is None
    assert [record.state.value for record in search.records()] == ["complete", "complete", "pruned", "complete"]


def test_an_epoch_reported_again_replaces_the_first_report_and_never_prunes(harness, settings):
    owes(harness, "replace")
    rule = {"type": "hyperband", "min_iter": 1, "eta": 3}
    metric = {"name": "val_acc", "goal": "maximize"}
    sweep = harness.create(**settings(metric=metric, early_terminate=rule))
    search = harness.agent(sweep, "a")
    for value in (0.5, 0.6):
        run(search, [value])
    request = take(search)
    assert search.report(request.trial_id, 1, {"val_acc": 0.9}) is None
    search.finish(request.trial_id, PREEMPTED)
    again = take(search)
    assert search.report(again.trial_id, 1, {"val_acc": 0.1}) is None
    assert search.records()[-1].metrics == {"val_acc": 0.1}
    assert search.report(again.trial_id, 2, {"val_acc": 0.1}) is StopReason.PRUNED


@pytest.mark.parametrize(("goal", "values"), [("maximize", (0.5, 0.8)), ("minimize", (0.8, 0.5))])
def test_reaching_the_target_ends_the_sweep_but_not_the_running_trials(harness, settings, goal, values):
    metric = {"name": "val_acc", "goal": goal, "target": sum(values) / 2}
    sweep = harness.create(**settings(metric=metric))
    search = harness.agent(sweep, "a")
    best, other = take(search), take(search)
    search.report(best.trial_id, 1, {"val_acc": values[0]})
    assert harness.state(sweep) == "running"
    assert search.report(best.trial_id, 2, {"val_acc": values[1]}) is None
    assert harness.state(sweep) == "finished"
    assert search.next_trial("cpu/0") is None
    assert search.report(other.trial_id, 1, {"val_acc": values[0]}) is None
    search.finish(other.trial_id, COMPLETE)
    search.finish(best.trial_id, COMPLETE)


def test_a_target_on_a_metric_of_the_result_counts_at_the_end(harness, settings, complete):
    metric = {"name": "macro_f1", "goal": "maximize", "target": 0.5}
    sweep = harness.create(**settings(metric=metric))
    search = harness.agent(sweep, "a")
    search.finish(take(search).trial_id, complete(macro_f1=0.49))
    assert harness.state(sweep) == "running"
    search.finish(take(search).trial_id, complete(macro_f1=0.5))
    assert harness.state(sweep) == "finished"


def test_finishing_twice_in_the_same_way_changes_nothing(harness, settings, complete):
    search = harness.agent(harness.create(**settings()), "a")
    request = take(search)
    search.finish(request.trial_id, complete(best_val_acc=0.6))
    harness.wait(10)
    before = search.records()
    search.finish(request.trial_id, complete(best_val_acc=0.7))
    assert search.records() == before


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_configurations_that_cannot_be_trained_are_passed_over(harness, settings, method):
    if method != "grid":
        owes(harness, "exhaust")
    parameters = {"model": {"value": "vit"}, "dim": {"values": [64, 96]}, "head_dim": {"values": [32, 48]}}
    search = harness.agent(harness.create(**settings(method=method, parameters=parameters)), "a")
    given = set()
    while request := search.next_trial("cpu/0"):
        given.add((request.config.dim, request.config.head_dim))
        search.finish(request.trial_id, COMPLETE)
    assert given == {(64, 32), (96, 32), (96, 48)}
