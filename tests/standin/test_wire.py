"""Runs, access and faults of the stand-in server, asked over the wire."""

import http.client
import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.standin.client import HEARTBEAT, UPSERT_RUN, Client
from tests.support.standin.server import StandIn

GRID = {"method": "grid", "parameters": {"lr": {"values": [0.1, 0.2]}}}
RANDOM = {"method": "random", "parameters": {"lr": {"min": 0.0, "max": 1.0}}}


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def client(server: StandIn) -> Iterator[Client]:
    with Client(server) as client:
        yield client


# runs


def test_history_sent_twice_is_kept_once(server: StandIn, client: Client) -> None:
    client.begin("r1", lr=0.1)
    for _ in range(2):
        client.log("r1", {"loss": 2.0}, {"loss": float("nan")})
    client.stream("r1", files={"wandb-summary.json": {"offset": 0, "content": [json.dumps({"loss": 2.0})]}})
    run = server.runs["r1"]
    assert [row["_step"] for row in run.history] == [0, 1]
    assert (run.config, run.summary, run.host) == ({"lr": 0.1}, {"loss": 2.0}, "box")


def test_a_run_started_again_without_resuming_begins_anew(server: StandIn, client: Client) -> None:
    client.begin("r1")
    client.log("r1", {"loss": 2.0})
    client.end("r1")
    assert client.begin("r1")["inserted"] is False
    assert (server.runs["r1"].history, server.runs["r1"].state) == ([], "running")


def test_a_run_made_elsewhere_joins_its_sweep(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(GRID)
    client.begin("offline1", sweep.id, lr=0.1)
    client.end("offline1")
    assert sweep.run_ids == ["offline1"]
    (command,) = client.beat(client.agent(sweep.id))
    assert command["args"] == {"lr": {"value": 0.2}}


# access and faults


def test_keys_and_entities(server: StandIn) -> None:
    body = {"query": UPSERT_RUN, "variables": {"name": "r", "project": "p", "entity": "stranger"}}
    for key, status in (("local-" + "0" * 40, 401), ("", 403), (None, 403)):
        with Client(server, key) as client:
            assert client.post("/graphql", body)[0] == status
    with Client(server) as client:
        assert client.post("/graphql", body)[1]["errors"][0]["extensions"] == {"code": "PERMISSION_ERROR"}
        client.graphql(UPSERT_RUN, name="r", project="p", entity="lab")
    assert server.runs["r"].entity == "lab"


def test_unknown_fields_and_operations_are_graphql_errors(client: Client) -> None:
    for query in (
        "query Q { nothing }",
        "query Q { viewer { nothing } }",
        "mutation M { launch }",
        "query {",
        "{ viewer(",
    ):
        status, answer, _ = client.post("/graphql", {"query": query})
        assert (status, bool(answer["errors"])) == (200, True)


def test_injected_failures_are_used_up_in_order(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    server.faults.fail("Heartbeat", status=429, retry_after=2)
    server.faults.fail("Heartbeat")
    server.faults.error("Heartbeat", "try later")
    beat = {"query": HEARTBEAT, "variables": {"id": agent, "runState": "{}"}}
    answers = [client.post("/graphql", beat) for _ in range(3)]
    assert [status for status, _, _ in answers] == [429, 500, 200]
    assert answers[0][2]["Retry-After"] == "2"
    assert answers[2][1]["errors"][0]["message"] == "try later"
    assert sweep.run_ids == []
    assert [command["type"] for command in client.beat(agent)] == ["run"]
    assert server.faults.pending == 0
    assert [request.status for request in server.requests] == [200, 429, 500, 200, 200]


def test_lost_requests_and_lost_answers(server: StandIn, client: Client) -> None:
    sweep = server.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    for after, runs in ((False, 0), (True, 1)):
        server.faults.drop("Heartbeat", after=after)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            client.beat(agent)
        client.http.close()
        assert len(sweep.run_ids) == runs


def test_offline_until_online(server: StandIn, client: Client) -> None:
    client.begin("r1")
    server.faults.offline()
    for _ in range(2):
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            client.end("r1")
        client.http.close()
    server.faults.online()
    assert server.runs["r1"].state == "running"
    client.end("r1")
    assert server.runs["r1"].state == "finished"


def failure(client: Client, run_id: str) -> Exception | None:
    try:
        client.end(run_id)
    except (http.client.HTTPException, OSError) as error:
        return error
    return None


def test_closing_ends_a_late_answer_and_leaves_nothing() -> None:
    before, lost = set(threading.enumerate()), []
    with StandIn() as server:
        client = Client(server)
        server.faults.hang("file_stream", seconds=600)
        client.begin("r1")
        asking = threading.Thread(target=lambda: lost.append(failure(client, "r1")))
        asking.start()
        server.wait_for(lambda s: s.runs["r1"].state == "finished")
        started = time.monotonic()
    asking.join(10)
    client.http.close()
    assert isinstance(lost[0], http.client.HTTPException | ConnectionError)
    assert time.monotonic() - started < 5
    assert set(threading.enumerate()) == before


def test_waiting_is_woken_by_changes_and_says_what_was_there(server: StandIn, client: Client) -> None:
    waiting = threading.Thread(target=server.wait_for, args=(lambda s: "r1" in s.runs,))
    waiting.start()
    client.begin("r1")
    waiting.join(10)
    assert not waiting.is_alive()
    with pytest.raises(AssertionError, match="run r1: running"):
        server.wait_for(lambda s: s.runs["r1"].state == "finished", timeout_s=0.01)
