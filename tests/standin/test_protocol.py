"""The stand-in server over the wire: what it proposes, stops, requeues and refuses, and how it fails on demand."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.support.standin.client import CREATE_SWEEP, HEARTBEAT, UPSERT_RUN, Client
from tests.support.standin.server import StandIn

GRID = {"method": "grid", "program": "train.py", "parameters": {"lr": {"values": [0.1, 0.2]}}}
ONE = {**GRID, "parameters": {"lr": {"values": [0.1]}}}
RANDOM = {"method": "random", "parameters": {"lr": {"min": 0.0, "max": 1.0}}}


@pytest.fixture
def client(standin: StandIn) -> Iterator[Client]:
    with Client(standin) as client:
        yield client


def run_command(commands: list[dict[str, Any]], kind: str = "run") -> dict[str, Any]:
    assert [command["type"] for command in commands] == [kind]
    return commands[0]


def test_a_grid_is_proposed_in_order_with_nested_parameters_then_finished(standin: StandIn, client: Client) -> None:
    nested = {"parameters": {"name": {"value": "adam"}, "deep": {"parameters": {"q": {"value": 0}}}}}
    sweep = standin.create_sweep({**GRID, "parameters": {**GRID["parameters"], "optimizer": nested}})
    agent = client.agent(sweep.id)
    for lr in (0.1, 0.2):
        command = run_command(client.beat(agent))
        assert command["args"] == {"lr": {"value": lr}, "optimizer": {"value": {"name": "adam", "deep": {"q": 0}}}}
        assert command["program"] == "train.py"
        run = standin.runs[command["run_id"]]
        assert (run.state, run.sweep_id, run.agent_id, run.config["lr"]) == ("pending", sweep.id, agent, lr)
        client.begin(run.id, sweep.id)
        assert client.beat(agent, run.id) == []
        client.end(run.id)
        assert run.state == "finished"
    assert client.beat(agent) == [{"type": "exit"}]
    assert sweep.state == "FINISHED"


def test_an_idle_agent_waits_for_the_last_live_run(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep(ONE)
    busy, idle = client.agent(sweep.id), client.agent(sweep.id)
    run_id = run_command(client.beat(busy))["run_id"]
    client.begin(run_id, sweep.id)
    assert client.beat(idle) == []
    client.end(run_id)
    assert client.beat(idle) == [{"type": "exit"}]


def test_a_run_that_never_starts_does_not_hold_the_sweep(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep(ONE)
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    assert client.beat(agent, run_id) == []
    assert client.beat(agent) == [{"type": "exit"}]
    assert standin.runs[run_id].state == "pending"


def test_the_cap_counts_failed_runs_and_runs_made_elsewhere(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep({**RANDOM, "run_cap": 2})
    agent = client.agent(sweep.id)
    client.begin("offline1", sweep.id)
    client.end("offline1")
    failed = run_command(client.beat(agent))["run_id"]
    client.begin(failed, sweep.id)
    client.end(failed, 1)
    assert client.beat(agent) == [{"type": "exit"}]
    assert sweep.run_ids == ["offline1", failed]
    assert standin.runs[failed].state == "failed"


@pytest.mark.parametrize("pressed", ["cancel the sweep", "stop the run"])
def test_a_stop_is_repeated_until_the_run_has_ended(standin: StandIn, client: Client, pressed: str) -> None:
    sweep = standin.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    run_id = run_command(client.beat(agent))["run_id"]
    client.begin(run_id, sweep.id)
    assert client.log(run_id, {"loss": 1})["stopped"] is False
    if pressed == "cancel the sweep":
        standin.set_sweep_state(sweep.id, "CANCELED")
    else:
        standin.stop_run(run_id)
    for _ in range(2):
        assert client.beat(agent, run_id) == [{"type": "stop", "run_id": run_id}]
    assert client.log(run_id, {"loss": 1}, offset=1)["stopped"] is True
    client.end(run_id, 1)
    run_command(client.beat(agent), "exit" if pressed == "cancel the sweep" else "run")


@pytest.mark.parametrize("how", ["exit", "silence"])
def test_a_preempted_run_comes_back_with_its_history(standin: StandIn, client: Client, how: str) -> None:
    sweep = standin.create_sweep(ONE)
    first, second = client.agent(sweep.id), client.agent(sweep.id)
    command = run_command(client.beat(first))
    run = standin.runs[command["run_id"]]
    begun = client.begin(run.id, sweep.id)
    client.log(run.id, {"loss": 1.0})
    client.stream(run.id, preempting=True)
    standin.set_sweep_state(sweep.id, "PAUSED")
    if how == "exit":
        client.end(run.id, 143)
    else:
        standin.crash_silent_runs(run.id)
    assert (run.state, client.beat(second)) == ("preempted", [])
    standin.set_sweep_state(sweep.id, "RUNNING")
    assert {**run_command(client.beat(second), "resume"), "type": "run"} == command
    client.begin(run.id, sweep.id, id=begun["bucket"]["id"])
    assert (run.state, run.exit_code) == ("running", None)
    client.log(run.id, {"loss": 0.5}, offset=1)
    client.stream(run.id, preempting=True)
    client.end(run.id, 0)  # one that exits well is done
    assert ([row["loss"] for row in run.history], run.state) == ([1.0, 0.5], "finished")
    assert client.beat(second) == [{"type": "exit"}]


def test_a_run_given_up_for_its_silence_lives_again_with_its_next_words(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep(ONE)
    agent = client.agent(sweep.id)
    run = standin.runs[run_command(client.beat(agent))["run_id"]]
    client.begin(run.id, sweep.id)
    standin.crash_silent_runs()
    assert run.state == "crashed"
    assert client.beat(agent) == [{"type": "exit"}]
    client.log(run.id, {"loss": 1})
    assert run.state == "running"


def test_history_sent_twice_is_kept_once_and_a_run_begun_anew_has_none(standin: StandIn, client: Client) -> None:
    client.begin("r1", config={"lr": 0.1})
    for _ in range(2):
        client.log("r1", {"loss": 2.0}, {"loss": float("nan")})
    client.stream("r1", files={"wandb-summary.json": {"offset": 0, "content": [json.dumps({"loss": 2.0})]}})
    run = standin.runs["r1"]
    assert [row["_step"] for row in run.history] == [0, 1]
    assert (run.config, run.summary, run.host) == ({"lr": 0.1}, {"loss": 2.0}, "box")
    client.end("r1")
    assert client.begin("r1")["inserted"] is False
    assert (run.history, run.state) == ([], "running")


@pytest.mark.parametrize("config", [{**GRID, "controller": {"type": "local"}}, {**GRID, "method": "custom"}])
def test_nothing_is_proposed_for_a_controller_elsewhere(
    standin: StandIn, client: Client, config: dict[str, Any]
) -> None:
    sweep = standin.create_sweep(config)
    assert client.beat(client.agent(sweep.id)) == []
    assert (sweep.state, sweep.run_ids) == ("RUNNING", [])


def test_a_sweep_is_created_changed_refused_and_deleted(standin: StandIn, client: Client) -> None:
    text = yaml.safe_dump({**GRID, "surprise": 1})
    made = client.graphql(CREATE_SWEEP, input={"config": text, "projectName": "faces"})["upsertSweep"]
    assert "surprise" in made["configValidationWarnings"][0]
    sweep = standin.sweeps[made["sweep"]["name"]]
    client.graphql(CREATE_SWEEP, input={"id": made["sweep"]["id"], "state": "PAUSED"})
    assert (sweep.entity, sweep.project, sweep.state) == ("tester", "faces", "PAUSED")
    for useless in ("", "method: magic", "method: grid", "method: grid\nparameters: {a: {min: 0.0, max: 1.0}}"):
        _, answer, _ = client.post("/graphql", {"query": CREATE_SWEEP, "variables": {"input": {"config": useless}}})
        assert "invalid sweep config" in answer["errors"][0]["message"]
    agent = client.agent(sweep.id)
    standin.delete_sweep(sweep.id)
    status, answer, _ = client.post("/graphql", {"query": HEARTBEAT, "variables": {"id": agent, "runState": "{}"}})
    assert (status, "not found" in answer["errors"][0]["message"]) == (404, True)


def test_keys_and_entities(standin: StandIn) -> None:
    body = {"query": UPSERT_RUN, "variables": {"input": {"name": "r", "modelName": "p", "entityName": "stranger"}}}
    for key, status in (("local-" + "0" * 40, 401), ("", 403), (None, 403)):
        with Client(standin, key) as client:
            assert client.post("/graphql", body)[0] == status
    with Client(standin) as client:
        assert client.post("/graphql", body)[1]["errors"][0]["extensions"] == {"code": "PERMISSION_ERROR"}
        client.begin("r", entityName="lab")
    assert standin.runs["r"].entity == "lab"


UNKNOWN = ("query Q { nothing }", "query Q { viewer { nothing } }", "query Q { project(number: 1) { name } }")


@pytest.mark.parametrize("query", [*UNKNOWN, "mutation M { launch }", "query {", "{ viewer("])
def test_unknown_fields_and_broken_queries_are_graphql_errors(client: Client, query: str) -> None:
    status, answer, _ = client.post("/graphql", {"query": query})
    assert (status, bool(answer["errors"])) == (200, True)


def test_injected_failures_are_used_up_in_order(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    standin.faults.fail("Heartbeat", status=429, retry_after=2)
    standin.faults.fail("Heartbeat")
    standin.faults.error("Heartbeat", "try later")
    beat = {"query": HEARTBEAT, "variables": {"id": agent, "runState": "{}"}}
    answers = [client.post("/graphql", beat) for _ in range(3)]
    assert [status for status, _, _ in answers] == [429, 500, 200]
    assert (answers[0][2]["Retry-After"], answers[2][1]["errors"][0]["message"]) == ("2", "try later")
    assert sweep.run_ids == []
    assert [command["type"] for command in client.beat(agent)] == ["run"]
    assert [request.status for request in standin.requests] == [200, 429, 500, 200, 200]


def test_lost_requests_lost_answers_and_a_network_cut(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    for after, runs in ((False, 0), (True, 1)):
        standin.faults.drop("Heartbeat", after=after)
        with pytest.raises(ConnectionError):
            client.beat(agent)
        assert len(sweep.run_ids) == runs
    standin.faults.offline()
    for _ in range(2):
        with pytest.raises(ConnectionError):
            client.beat(agent)
    standin.faults.online()
    assert len(sweep.run_ids) == 1
    run_command(client.beat(agent))


def test_late_answers_come_when_the_faults_are_cleared_and_closing_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with StandIn() as server, Client(server) as client, ThreadPoolExecutor(1) as pool:
        for run_id in ("r1", "r2"):
            client.begin(run_id)
            server.faults.hang("file_stream")
            late = pool.submit(client.end, run_id)
            server.wait_for(lambda server, run_id=run_id: server.runs[run_id].state == "finished")
            assert not late.done()
            if run_id == "r1":
                server.faults.clear()
                assert late.result(10)["exitcode"] == 0
        server.close()
        assert isinstance(late.exception(10), ConnectionError)
    assert set(threading.enumerate()) == before
