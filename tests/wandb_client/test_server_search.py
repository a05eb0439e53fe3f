"""The search on a W&B server beyond the seam: several hosts, offers that come too late, odd answers."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import ConfigError, ServerBusy
from fer_sweep.records import StopReason, TrialOutcome, TrialState, Wait
from fer_sweep.store.sweeps import record_sweep
from fer_sweep.wandb_client.messages import ServerRun
from fer_sweep.wandb_client.reconcile import record_from
from fer_sweep.wandb_client.server_search import REFUSED_IN_A_ROW
from fer_sweep.wandb_client.slots import Pace
from tests.search.conftest import AT_ONCE, TrackedSearch, take
from tests.support.standin.runs import upsert_run

LATE = Pace(idle_s=0.0, longest_idle_s=0.0, patience_s=0.0)
"""A loop that gets the server's answers at its next question."""
PREEMPTED = TrialOutcome(TrialState.PREEMPTED)


@pytest.fixture
def hosts(standin):
    """Opens agents of several hosts, each with a database of its own, on sweeps of the stand-in server."""
    with contextlib.ExitStack() as stack:

        def agent(sweep, host="here", **options):
            storage = f"sqlite:///{Path(host).absolute()}/sweeps.db"
            record_sweep(parse_sweep(standin.sweeps[sweep].config), sweep, storage)
            search = TrackedSearch(standin, sweep, storage=storage, **options)
            return stack.enter_context(contextlib.closing(search))

        yield agent


@pytest.fixture
def create(standin, settings):
    return lambda **changes: standin.create_sweep({"program": "fersweep", **settings(**changes)}).id


@pytest.fixture
def single(create):
    """A sweep of one trial."""
    return create(run_cap=1)


def commands(*given):
    """The answer to a heartbeat that has these commands."""
    return json.dumps({"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(given)}}})


def test_a_trial_preempted_here_and_ended_elsewhere_is_not_trained_again(hosts, single, complete):
    here = hosts(single)
    request = take(here)
    here.finish(request.trial_id, PREEMPTED)
    there = hosts(single, "there")
    again = take(there)
    assert (again.trial_id, again.attempt) == (request.trial_id, 1)
    there.finish(again.trial_id, complete(best_val_acc=0.7))
    assert [record.state for record in here.records()] == [TrialState.COMPLETE], "as the server has it"
    assert hosts(single).next_trial("cpu0") is None
    assert [record.state for record in here.records()] == [TrialState.COMPLETE]


@pytest.mark.parametrize(
    ("state", "summary", "reason"),
    [
        ("crashed", {}, None),  # as the server calls one without a heartbeat for minutes
        ("failed", {}, None),  # closed by an agent that had lost the trial
        ("failed", {"state": "failed", "reason": "a crash"}, "it ended on another host: a crash"),
    ],
)
def test_a_dead_agents_trial_is_resumed_unless_it_has_ended_elsewhere(standin, hosts, single, state, summary, reason):
    first = hosts(single)
    request = take(first)
    first.close()
    run = standin.runs[request.trial_id]
    run.state, run.summary = state, summary
    second = hosts(single)
    given = second.next_trial("cpu0")
    if reason is None:
        assert (given.trial_id, given.attempt) == (request.trial_id, 2)
    else:
        assert given is None
        assert [(record.state, record.reason) for record in second.records()] == [(TrialState.FAILED, reason)]


def test_a_preempted_trial_that_the_server_calls_running_is_resumed_after_a_silent_lease(
    standin, hosts, create, clock, complete
):
    sweep = create(run_cap=50)
    first, second = (hosts(sweep, owner=owner, clock=clock) for owner in ("first", "second"))
    request = take(first)
    first.tracked.clear()
    first.finish(request.trial_id, PREEMPTED)  # which does not reach the server
    for sign_of_life in ("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z"):
        new = take(second)
        assert new.trial_id != request.trial_id, "another agent may own it"
        second.finish(new.trial_id, complete())
        clock.now += 61
        standin.runs[request.trial_id].heartbeat_at = sign_of_life
    assert take(second).trial_id != request.trial_id
    clock.now += 61
    assert take(second).trial_id == request.trial_id, "before new ones"


def test_records_show_the_runs_of_other_programs_and_versions(standin, hosts, create, complete):
    sweep = create()
    with standin.store.changed:
        for number in range(130):
            given = {"name": f"r{number:03}", "modelName": "faces", "sweep": sweep, "config": json.dumps({})}
            upsert_run(standin.store, "tester", given)
    records = hosts(sweep).records()
    assert len(records) == 130, "more than a page"
    assert {record.state for record in records} == {TrialState.RUNNING}
    assert not any(record.metrics or record.result for record in records)
    result = complete().result
    summary = {**result.model_dump(mode="json", exclude={"micro_batch"}), "_step": 3}  # without a field that was added
    run = ServerRun("abc", "finished", {}, summary, created_at=0.0, heartbeat_at=1.0, steps=3)
    assert record_from(run).result == result
    assert record_from(replace(run, summary={"best_val_acc": 0.5})).result is None


def test_an_offer_that_was_not_begun_is_handed_back(standin, hosts, single):
    standin.faults.hang("Heartbeat")
    late = hosts(single, pace=LATE)
    assert isinstance(late.next_trial("cpu0"), Wait)
    standin.wait_for(lambda server: bool(server.runs))
    standin.faults.clear()
    late.close()
    (run,) = standin.runs.values()
    assert run.state == "preempted"
    assert take(hosts(single, "there")).trial_id == run.id


def test_a_run_whose_offer_was_lost_is_begun_once_after_a_lease(standin, hosts, single, clock):
    standin.faults.drop("Heartbeat", after=True)
    pace = replace(AT_ONCE, longest_retry_s=0.01)
    agents = [hosts(single, owner=owner, clock=clock, pace=pace) for owner in ("a", "b")]
    while standin.sweeps[single].state != "FINISHED":
        assert all(isinstance(agent.next_trial("cpu0"), Wait) for agent in agents)
    (lost,) = standin.runs.values()
    config = lost.config
    waits = [agent.next_trial("cpu0") for agent in agents]
    assert all(isinstance(wait, Wait) and lost.id in wait.reason for wait in waits), "another agent may begin it"
    clock.now += 61
    request = take(agents[0])
    assert (request.trial_id, dict(request.parameters)) == (lost.id, config)
    assert agents[1].next_trial("cpu0") is None


def test_a_space_that_cannot_be_trained_ends_the_agent(standin, hosts, create):
    sweep = create(
        parameters={"model": {"value": "simple_cnn"}, "epochs": {"value": -1}, "lr": {"min": 0.1, "max": 1.0}}
    )
    with pytest.raises(ConfigError, match="epochs"):
        hosts(sweep).next_trial("cpu0")
    runs = list(standin.runs.values())
    assert [run.state for run in runs] == ["failed"] * REFUSED_IN_A_ROW
    assert "epochs" in runs[0].summary["reason"]


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *(("fail", {"body": body}) for body in ("<html>", "[]", "null", '{"data": null}', '{"data": {"x": 1}}')),
        *(("fail", {"body": commands({"type": "run", "run_id": id, "args": {}})}) for id in ("../../etc", "x" * 500)),
        *(("fail", {"body": commands(*given)}) for given in ([{"type": "dance"}], [{}], [])),
        *(("fail", {"status": 429, "retry_after": after}) for after in ("inf", "1e20", "nan", "-5", "soon")),
        ("drop", {}),
        ("error", {"message": "internal error"}),
    ],
)
def test_failed_unreadable_and_unknown_answers_are_passed_over(standin, hosts, create, kind, fault):
    getattr(standin.faults, kind)("Heartbeat", **({"status": 200} if "body" in fault else {}), **fault)
    standin.faults.fail("CreateAgent", status=503)
    search = hosts(create(), pace=replace(AT_ONCE, longest_retry_s=0.01))
    while isinstance(given := search.next_trial("cpu0"), Wait):
        pass
    assert given.trial_id in standin.runs


def test_a_server_is_asked_no_sooner_than_it_wants(standin, hosts, create, monkeypatch):
    monkeypatch.setattr("fer_sweep.wandb_client.slots.random.uniform", lambda low, high: 0.0)  # no wait of our own
    standin.faults.fail("Heartbeat", status=429, retry_after=0.1)
    search = hosts(create())
    while isinstance(search.next_trial("cpu0"), Wait):
        pass
    refused, again = [request.at for request in standin.requests if request.operation == "Heartbeat"]
    assert again - refused >= 0.1


def test_an_idle_agent_gives_a_silent_server_up(standin, hosts, create):
    standin.faults.offline()
    search = hosts(create(), pace=replace(AT_ONCE, give_up_s=0.0, longest_retry_s=0.01))
    with pytest.raises(ServerBusy, match="no answer"):
        for _ in range(10):
            search.next_trial("cpu0")


def test_a_heartbeat_that_hangs_delays_no_report(standin, hosts, create):
    sweep = create()
    search = hosts(sweep, pace=Pace(running_s=0.0, patience_s=20.0))
    request = take(search)
    standin.faults.hang("Heartbeat")
    search.report(request.trial_id, 0, {})
    (agent,) = standin.sweeps[sweep].agents
    standin.wait_for(lambda server: request.trial_id in agent.reported)
    answered = standin.operations()
    for epoch in range(1, 10):
        search.report(request.trial_id, epoch, {"epoch": epoch, "val_acc": 0.5})
    assert standin.operations() == answered
    standin.faults.clear()


def test_exit_and_cancel_in_one_heartbeat_checkpoint_what_runs(standin, hosts, create):
    standin.store.exit_with_cancel = True
    sweep = create()
    search = hosts(sweep)
    request = take(search)
    standin.set_sweep_state(sweep, "CANCELED")
    assert search.report(request.trial_id, 1, {}) is StopReason.PREEMPTED
