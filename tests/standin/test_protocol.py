"""The stand-in server over the wire: what it proposes, keeps and refuses, and how it fails on demand.

Most of it is held by the tests of fersweep's own clients; here is what those would not notice.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
import yaml

from tests.support.standin.client import HEARTBEAT, UPSERT_RUN, UPSERT_SWEEP, Client
from tests.support.standin.server import StandIn

GRID = {"method": "grid", "program": "train.py", "parameters": {"lr": {"values": [0.1]}}}
RANDOM = {"method": "random", "parameters": {"lr": {"min": 0.0, "max": 1.0}}}


@pytest.fixture
def client(standin: StandIn) -> Iterator[Client]:
    with closing(Client(standin)) as client:
        yield client


def log(client: Client, run_id: str, *rows: dict[str, Any], offset: int = 0) -> None:
    content = [json.dumps({"_step": offset + index, **row}) for index, row in enumerate(rows)]
    client.stream(run_id, files={"wandb-history.jsonl": {"offset": offset, "content": content}})


def test_a_preempted_run_is_handed_out_again_and_keeps_its_history(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep(GRID)
    first, second = client.agent(sweep.id), client.agent(sweep.id)
    (command,) = client.beat(first)
    run = standin.runs[command["run_id"]]
    assert command == {"type": "run", "run_id": run.id, "args": {"lr": {"value": 0.1}}, "program": "train.py"}
    assert (run.state, run.sweep_id, client.beat(second)) == ("pending", sweep.id, []), "it may come back"
    begun = client.begin(run.id, sweep=sweep.id)
    log(client, run.id, {"loss": 1.0})
    client.stream(run.id, preempting=True)
    standin.set_sweep_state(sweep.id, "PAUSED")
    client.stream(run.id, complete=True, exitcode=143)
    assert (run.state, client.beat(second)) == ("preempted", [])
    standin.set_sweep_state(sweep.id, "RUNNING")
    assert client.beat(second) == [{**command, "type": "resume"}]
    client.begin(run.id, sweep=sweep.id, id=begun["bucket"]["id"])
    log(client, run.id, {"loss": 0.5}, offset=1)
    client.stream(run.id, preempting=True)
    client.stream(run.id, complete=True, exitcode=0)  # one that exits well is done
    assert ([row["loss"] for row in run.history], run.state) == ([1.0, 0.5], "finished")
    assert client.beat(second) == [{"type": "exit"}]


def test_history_sent_twice_is_kept_once_and_a_run_begun_anew_has_none(standin: StandIn, client: Client) -> None:
    client.begin("r1", config={"lr": 0.1})
    for _ in range(2):
        log(client, "r1", {"loss": 2.0}, {"loss": float("nan")})
    run = standin.runs["r1"]
    assert [row["_step"] for row in run.history] == [0, 1]
    standin.crash_silent_runs("r1")
    assert run.state == "crashed"
    log(client, "r1", {"loss": 1.0}, offset=2)
    assert (run.state, len(run.history), run.config) == ("running", 3, {"lr": 0.1})
    client.stream("r1", complete=True, exitcode=1)
    assert client.begin("r1")["inserted"] is False
    assert (run.history, run.state) == ([], "running")


SWEEPS = ("", "method: magic", "method: grid", "method: grid\nparameters: {a: {min: 0.0, max: 1.0}}")
QUERIES = ("query Q { nothing }", "query Q { viewer { nothing } }", "query Q { project(number: 1) { name } }")
QUERIES += ("mutation M { launch }", "query {", "{ viewer(")


@pytest.mark.parametrize(
    ("query", "variables", "status", "message"),
    [
        *((UPSERT_SWEEP, {"input": {"config": text}}, 200, "invalid sweep config") for text in SWEEPS),
        *((query, {}, 200, "") for query in QUERIES),
        (HEARTBEAT, {"id": "of a deleted sweep", "runState": "{}"}, 404, "not found"),
        (UPSERT_RUN, {"input": {"name": "r", "entityName": "stranger"}}, 403, "permission denied"),
    ],
)
def test_what_cannot_be_done_is_refused(
    standin: StandIn, client: Client, query: str, variables: dict[str, Any], status: int, message: str
) -> None:
    found, answer, _ = client.post("/graphql", {"query": query, "variables": variables})
    assert (found, message in answer["errors"][0]["message"]) == (status, True)
    with closing(Client(standin, "local-" + "0" * 40)) as stranger:
        assert stranger.post("/graphql", {"query": query, "variables": variables})[0] == 401
    assert not standin.sweeps and not standin.runs


def test_what_is_strange_in_a_sweep_file_is_said(standin: StandIn, client: Client) -> None:
    text = yaml.safe_dump({**GRID, "surprise": 1})
    made = client.graphql(UPSERT_SWEEP, input={"config": text, "projectName": "faces", "entityName": "lab"})
    assert "surprise" in made["upsertSweep"]["configValidationWarnings"][0]
    (sweep,) = standin.sweeps.values()
    assert (sweep.entity, sweep.project, sweep.state) == ("lab", "faces", "RUNNING")


def test_injected_failures_are_used_up_in_order(standin: StandIn, client: Client) -> None:
    sweep = standin.create_sweep(RANDOM)
    agent = client.agent(sweep.id)
    standin.faults.fail("Heartbeat", status=429, retry_after=2)
    standin.faults.error("Heartbeat", "try later")
    beat = {"query": HEARTBEAT, "variables": {"id": agent, "runState": "{}"}}
    (status, _, headers), (_, error, _) = (client.post("/graphql", beat) for _ in range(2))
    assert (status, headers["Retry-After"], error["errors"][0]["message"]) == (429, "2", "try later")
    assert sweep.run_ids == []
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
    assert [command["type"] for command in client.beat(agent)] == ["run"]
    assert [request.status for request in standin.requests] == [200, 429, 200, 0, 0, 0, 0, 200]


def test_late_answers_come_when_the_faults_are_cleared_and_closing_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with StandIn() as server, closing(Client(server)) as client, ThreadPoolExecutor(1) as pool:
        for run_id in ("r1", "r2"):
            client.begin(run_id)
            server.faults.hang("file_stream")
            late = pool.submit(client.stream, run_id, complete=True, exitcode=0)
            server.wait_for(lambda server, run_id=run_id: server.runs[run_id].state == "finished")
            assert not late.done()
            if run_id == "r1":
                server.faults.clear()
                assert late.result(10)["exitcode"] == 0
        server.close()
        assert isinstance(late.exception(10), ConnectionError)
    assert set(threading.enumerate()) == before
