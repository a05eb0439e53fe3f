"""The search on a W&B server beyond the seam: several hosts, offers that come too late, odd answers."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fer_sweep.config.sweep_file import parse_sweep
from fer_sweep.errors import ConfigError, ServerBusy
from fer_sweep.files import trial_folder
from fer_sweep.records import StopReason, TrialOutcome, TrialRequest, TrialState, Wait
from fer_sweep.store.sweeps import record_sweep
from fer_sweep.wandb_client.account import Account
from fer_sweep.wandb_client.client import WandbServer
from fer_sweep.wandb_client.messages import ServerRun, SweepPath
from fer_sweep.wandb_client.records import record_from
from fer_sweep.wandb_client.server_search import REFUSED_IN_A_ROW, WandbSearch
from fer_sweep.wandb_client.slots import Pace
from tests.search.conftest import Clock
from tests.support.standin.faults import Faults
from tests.support.standin.runs import file_stream, upsert_run
from tests.support.standin.server import StandIn

Settings = Callable[..., Mapping[str, Any]]
AT_ONCE = Pace(idle_s=0.0, longest_idle_s=0.0, freshness_s=0.0, patience_s=20.0)
LATE = Pace(patience_s=0.0)
"""A loop that is told of the server's answers at its next question."""


class Hosts:
    """Agents of several hosts, each with a database of its own, on sweeps of one server."""

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self._opened: list[WandbSearch] = []

    def create(self, **sweep: Any) -> str:
        return self.server.create_sweep({"program": "fersweep", **sweep}).id

    def agent(self, sweep: str, host: str, *, pace: Pace = AT_ONCE, **options: Any) -> WandbSearch:
        storage = f"sqlite:///{Path(host).absolute()}/sweeps.db"
        record_sweep(parse_sweep(self.server.sweeps[sweep].config), sweep, storage)
        account = Account(self.server.url, self.server.url, None, None, self.server.api_key)
        path = SweepPath("tester", "faces", sweep)
        search = WandbSearch(path, connect=lambda: WandbServer(account), storage=storage, pace=pace, **options)
        self._opened.append(search)
        return search

    def end(self, run: str, exit_code: int, **body: Any) -> None:
        """What wandb tells the server at a run's end."""
        with self.server.store.changed:
            found = self.server.runs[run]
            given = {"name": run, "id": found.storage_id, "host": "x", "config": json.dumps({"lr": {"value": 1}})}
            upsert_run(self.server.store, found.entity, given)
            for name, value in body.items():
                file_stream(self.server.store, found, {name: value})
            file_stream(self.server.store, found, {"complete": True, "exitcode": exit_code})

    def close(self) -> None:
        for search in self._opened:
            search.close()


@pytest.fixture
def hosts(standin: StandIn) -> Iterator[Hosts]:
    made = Hosts(standin)
    yield made
    made.close()


def take(search: WandbSearch, slot: str = "cpu0") -> TrialRequest:
    request = search.next_trial(slot)
    assert isinstance(request, TrialRequest), request
    return request


def test_a_trial_preempted_here_and_ended_elsewhere_is_not_trained_again(
    hosts: Hosts, settings: Settings, complete: Callable[..., TrialOutcome]
) -> None:
    sweep = hosts.create(**settings(run_cap=1))
    here = hosts.agent(sweep, "here")
    request = take(here)
    here.finish(request.trial_id, TrialOutcome(TrialState.PREEMPTED))
    hosts.end(request.trial_id, 1, preempting=True)
    there = hosts.agent(sweep, "there")
    again = take(there)
    assert (again.trial_id, again.attempt) == (request.trial_id, 1)
    there.finish(again.trial_id, complete(best_val_acc=0.7))
    hosts.end(again.trial_id, 0)
    assert [record.state for record in here.records()] == [TrialState.COMPLETE], "as the server has it"
    assert hosts.agent(sweep, "here").next_trial("cpu0") is None
    assert [record.state for record in here.records()] == [TrialState.COMPLETE]


def test_a_dead_agents_trial_that_the_server_calls_crashed_is_resumed(hosts: Hosts, settings: Settings) -> None:
    sweep = hosts.create(**settings(run_cap=1))
    first = hosts.agent(sweep, "here")
    request = take(first)
    first.close()
    hosts.server.crash_silent_runs(request.trial_id)
    assert take(hosts.agent(sweep, "here")).trial_id == request.trial_id


def test_a_run_closed_by_an_agent_that_lost_its_trial_is_no_end(hosts: Hosts, settings: Settings, clock: Clock) -> None:
    sweep = hosts.create(**settings(run_cap=1))
    request = take(hosts.agent(sweep, "here", owner="paused", clock=clock))
    clock.now += 61
    killed = hosts.agent(sweep, "here", owner="killed", clock=clock)
    assert take(killed).attempt == 2
    hosts.end(request.trial_id, 1)  # of the first agent, which is back and has found its trial gone
    assert hosts.server.runs[request.trial_id].state == "failed"
    clock.now += 61
    again = take(hosts.agent(sweep, "here", owner="third", clock=clock))
    assert (again.trial_id, again.attempt) == (request.trial_id, 3)


def test_a_trial_that_failed_elsewhere_has_failed(hosts: Hosts, settings: Settings, clock: Clock) -> None:
    sweep = hosts.create(**settings(run_cap=1))
    here = hosts.agent(sweep, "here", owner="first", clock=clock)
    request = take(here)
    summary = {"wandb-summary.json": {"offset": 0, "content": [json.dumps({"state": "failed", "reason": "a crash"})]}}
    hosts.end(request.trial_id, 1, files=summary)
    clock.now += 61
    second = hosts.agent(sweep, "here", owner="second", clock=clock)
    assert second.next_trial("cpu0") is None
    assert [(record.state, record.reason) for record in second.records()] == [
        (TrialState.FAILED, "it ended on another host: a crash")
    ]


def test_an_offer_that_was_not_begun_is_handed_back(hosts: Hosts, settings: Settings) -> None:
    sweep = hosts.create(**settings(run_cap=1))
    hosts.server.faults.hang("Heartbeat")
    late = hosts.agent(sweep, "late", pace=LATE)
    assert isinstance(late.next_trial("cpu0"), Wait)
    hosts.server.wait_for(lambda server: bool(server.runs))
    hosts.server.faults.clear()
    late.close()
    (run,) = hosts.server.runs.values()
    assert run.state == "preempted"
    request = take(hosts.agent(sweep, "other"))
    assert request.trial_id == run.id


def test_a_run_whose_offer_was_lost_is_begun_once_after_a_lease(hosts: Hosts, settings: Settings, clock: Clock) -> None:
    sweep = hosts.create(**settings(run_cap=1))
    hosts.server.faults.drop("Heartbeat", after=True)
    agents = [hosts.agent(sweep, "here", owner=owner, clock=clock, pace=AT_ONCE) for owner in ("a", "b")]
    assert all(isinstance(agent.next_trial("cpu0"), Wait) for agent in agents)
    (lost,) = hosts.server.runs.values()
    hosts.server.wait_for(lambda server: server.sweeps[sweep].state == "FINISHED")
    waits = [agent.next_trial("cpu0") for agent in agents]
    assert all(isinstance(wait, Wait) and lost.id in wait.reason for wait in waits), "somebody may be about to begin it"
    clock.now += 61
    request = take(agents[0])
    assert (request.trial_id, dict(request.parameters)) == (lost.id, lost.config)
    assert agents[1].next_trial("cpu0") is None


def test_a_preempted_trial_that_the_server_calls_running_is_resumed_after_a_silent_lease(
    hosts: Hosts, settings: Settings, clock: Clock
) -> None:
    sweep = hosts.create(**settings(run_cap=1))
    first = hosts.agent(sweep, "here", owner="first", clock=clock)
    request = take(first)
    first.finish(request.trial_id, TrialOutcome(TrialState.PREEMPTED))
    run = hosts.server.runs[request.trial_id]
    run.state = "running"  # to the server, which was out of reach then
    second = hosts.agent(sweep, "here", owner="second", clock=clock)
    assert isinstance(second.next_trial("cpu0"), Wait)
    clock.now += 61
    run.heartbeat_at = "2026-01-01T00:00:00.000Z"  # somebody has it after all
    assert isinstance(second.next_trial("cpu0"), Wait)
    clock.now += 61
    assert (take(second).trial_id, request.attempt) == (request.trial_id, 1)


def test_a_preempted_trial_that_the_server_calls_running_comes_before_new_ones(
    hosts: Hosts, settings: Settings, clock: Clock, complete: Callable[..., TrialOutcome]
) -> None:
    sweep = hosts.create(**settings(run_cap=50))
    first = hosts.agent(sweep, "here", owner="first", clock=clock)
    request = take(first)
    first.finish(request.trial_id, TrialOutcome(TrialState.PREEMPTED))
    hosts.server.runs[request.trial_id].state = "running"  # to the server, which was out of reach then
    second = hosts.agent(sweep, "here", owner="second", clock=clock)
    new = take(second)
    assert new.trial_id != request.trial_id
    second.finish(new.trial_id, complete(best_val_acc=0.7))
    hosts.end(new.trial_id, 0)
    clock.now += 61
    assert take(second).trial_id == request.trial_id


def test_a_slot_that_stops_asking_takes_no_trial(
    hosts: Hosts, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.wandb_client.slots.time", SimpleNamespace(monotonic=clock))
    sweep = hosts.create(**settings(run_cap=1))
    hosts.server.set_sweep_state(sweep, "PAUSED")
    hosts.server.faults.hang("Heartbeat")
    stopped = hosts.agent(sweep, "here", pace=Pace(idle_s=0.0, longest_idle_s=0.0, patience_s=0.0))
    assert isinstance(stopped.next_trial("cpu0"), Wait)
    hosts.server.wait_for(lambda server: any(agent.heartbeats for agent in server.sweeps[sweep].agents))
    clock.now += 10
    hosts.server.set_sweep_state(sweep, "RUNNING")
    hosts.server.faults.clear()
    assert take(hosts.agent(sweep, "there")).trial_id in hosts.server.runs


def test_a_sweep_of_another_program_shows_its_runs(hosts: Hosts, settings: Settings) -> None:
    sweep = hosts.create(**settings(run_cap=150, method="random"))
    with hosts.server.store.changed:
        for number in range(130):
            given = {"name": f"r{number:03}", "modelName": "faces", "sweep": sweep, "config": json.dumps({})}
            upsert_run(hosts.server.store, "tester", given)
    records = hosts.agent(sweep, "here").records()
    assert len(records) == 130, "more than a page"
    assert {record.state for record in records} == {TrialState.RUNNING}
    assert not any(record.metrics or record.result for record in records)


@pytest.mark.parametrize(
    "commands",
    [
        [{"type": "run", "run_id": "../../etc", "args": {}}],
        [{"type": "run", "run_id": "", "args": {}}],
        [{"type": "run", "run_id": "x" * 500, "args": {}}],
        [{"type": "dance"}],
        [{}],
        [],
    ],
)
def test_unknown_commands_are_passed_over(
    hosts: Hosts, settings: Settings, commands: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    sweep = hosts.create(**settings())
    answer = {"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(commands)}}}
    hosts.server.faults.fail("Heartbeat", status=200, body=json.dumps(answer), times=2)
    with caplog.at_level(logging.WARNING):
        assert isinstance(hosts.agent(sweep, "here").next_trial("cpu0"), Wait | TrialRequest)
    assert not Path("etc").exists()


Fail = Callable[[Faults], None]


def answer(body: str) -> Fail:
    return lambda faults: faults.fail("Heartbeat", status=200, body=body)


@pytest.mark.parametrize(
    "fail",
    [
        *map(answer, ["<html>", "[]", "null", '{"data": null}', '{"data": {}}', '{"data": {"x": 1}}']),
        lambda faults: faults.fail("CreateAgent", status=503),
        lambda faults: faults.drop("Heartbeat"),
        lambda faults: faults.error("Heartbeat", "internal error"),
        *(
            lambda faults, after=after: faults.fail("Heartbeat", status=429, retry_after=after)
            for after in ("inf", "1e20", "nan", "-5", "soon")
        ),
    ],
)
def test_failed_and_unreadable_heartbeats_are_retried(hosts: Hosts, settings: Settings, fail: Fail) -> None:
    sweep = hosts.create(**settings())
    fail(hosts.server.faults)
    pace = Pace(idle_s=0.0, freshness_s=0.0, patience_s=20.0, longest_retry_s=0.01)
    search = hosts.agent(sweep, "here", pace=pace)
    while isinstance(given := search.next_trial("cpu0"), Wait):
        pass
    assert isinstance(given, TrialRequest)


def test_a_server_is_asked_no_sooner_than_it_wants(
    hosts: Hosts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_sweep.wandb_client.slots.random.uniform", lambda low, high: 0.0)  # no wait of our own
    sweep = hosts.create(**settings())
    hosts.server.faults.fail("Heartbeat", status=429, retry_after=0.1)
    search = hosts.agent(sweep, "here")
    while isinstance(search.next_trial("cpu0"), Wait):
        pass
    refused, again = [request.at for request in hosts.server.requests if request.operation == "Heartbeat"]
    assert again - refused >= 0.1


def test_of_two_runs_in_one_answer_the_second_is_handed_back(hosts: Hosts, settings: Settings) -> None:
    sweep = hosts.create(**settings(run_cap=2))
    first, second = hosts.agent(sweep, "a"), hosts.agent(sweep, "b")
    offered = [take(first), take(second)]
    for search, request in zip((first, second), offered, strict=True):
        search.finish(request.trial_id, TrialOutcome(TrialState.PREEMPTED))
        hosts.end(request.trial_id, 1, preempting=True)
    args = {name: {"value": value} for name, value in offered[0].parameters.items()}
    commands = [{"type": "run", "run_id": request.trial_id, "args": args} for request in offered]
    answer = {"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(commands)}}}
    hosts.server.faults.fail("Heartbeat", status=200, body=json.dumps(answer))
    third = hosts.agent(sweep, "c")
    assert take(third).trial_id == offered[0].trial_id
    third.close()
    assert hosts.server.runs[offered[1].trial_id].state == "preempted"


def test_an_idle_agent_gives_a_silent_server_up(hosts: Hosts, settings: Settings) -> None:
    sweep = hosts.create(**settings())
    hosts.server.faults.offline()
    pace = Pace(idle_s=0.0, freshness_s=0.0, patience_s=20.0, give_up_s=0.0, longest_retry_s=0.01)
    search = hosts.agent(sweep, "here", pace=pace)
    with pytest.raises(ServerBusy, match="no answer"):
        for _ in range(10):
            search.next_trial("cpu0")


def test_a_heartbeat_that_hangs_delays_no_report(hosts: Hosts, settings: Settings) -> None:
    sweep = hosts.create(**settings())
    search = hosts.agent(sweep, "here", pace=Pace(running_s=0.0, patience_s=20.0))
    request = take(search)
    hosts.server.faults.hang("Heartbeat")
    (agent,) = hosts.server.sweeps[sweep].agents
    hosts.server.wait_for(lambda server: request.trial_id in agent.reported)
    answered = hosts.server.operations()
    for epoch in range(1, 10):
        search.report(request.trial_id, epoch, {"epoch": epoch, "val_acc": 0.5})
    assert hosts.server.operations() == answered
    hosts.server.faults.clear()


def test_exit_and_cancel_in_one_heartbeat_checkpoint_what_runs(hosts: Hosts, settings: Settings) -> None:
    hosts.server.store.exit_with_cancel = True
    sweep = hosts.create(**settings())
    search = hosts.agent(sweep, "here")
    request = take(search)
    hosts.server.set_sweep_state(sweep, "CANCELED")
    assert search.report(request.trial_id, 1, {}) is StopReason.PREEMPTED


def test_a_space_that_cannot_be_trained_ends_the_agent(hosts: Hosts, settings: Settings) -> None:
    sweep = hosts.create(**settings())
    hosts.server.sweeps[sweep].config["parameters"]["epochs"] = {"value": -1}
    with pytest.raises(ConfigError, match="epochs"):
        hosts.agent(sweep, "here").next_trial("cpu0")
    runs = list(hosts.server.runs.values())
    assert [run.state for run in runs] == ["failed"] * REFUSED_IN_A_ROW
    assert "epochs" in runs[0].summary["reason"]


def test_a_configuration_that_comes_again_gets_the_results_of_the_first_trial(
    hosts: Hosts, settings: Settings, complete: Callable[..., TrialOutcome]
) -> None:
    sweep = hosts.create(**settings(parameters={"model": {"value": "simple_cnn"}, "lr": {"values": [0.01]}}))
    search = hosts.agent(sweep, "here")
    first = take(search)
    (folder := trial_folder(sweep, first.trial_id)).mkdir(parents=True)
    for name in ("config.json", "result.json"):
        (folder / name).write_text("{}")
    search.finish(first.trial_id, complete())
    hosts.end(first.trial_id, 0)
    second = take(search)
    assert second.trial_id != first.trial_id
    assert (trial_folder(sweep, second.trial_id) / "result.json").read_text() == "{}"


def test_result_on_the_server_without_an_added_field_is_read(complete: Callable[..., TrialOutcome]) -> None:
    result = complete().result
    assert result is not None
    summary = {**result.model_dump(mode="json", exclude={"micro_batch"}), "_step": 3}
    run = ServerRun("abc", "finished", {}, summary, created_at=0.0, heartbeat_at=1.0, steps=3)
    assert record_from(run).result == result
    assert record_from(replace(run, summary={"best_val_acc": 0.5})).result is None
