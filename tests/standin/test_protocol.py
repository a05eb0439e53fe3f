"""The stand-in server over the wire: what the tests of fersweep's own clients would not notice.

They hold what it proposes, stops, requeues and hands out again.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.support.standin.client import UPSERT_RUN, Client
from tests.support.standin.server import StandIn


@pytest.fixture
def client(standin: StandIn) -> Iterator[Client]:
    with closing(Client(standin)) as client:
        yield client


def log(client: Client, offset: int, *rows: dict[str, Any]) -> None:
    content = [json.dumps({"_step": offset + index, **row}) for index, row in enumerate(rows)]
    client.stream("r1", files={"wandb-history.jsonl": {"offset": offset, "content": content}})


def test_history_is_kept_once_and_by_a_run_that_is_resumed_only(standin: StandIn, client: Client) -> None:
    begun = client.begin("r1", config={"lr": 0.1}, entityName="lab")
    for _ in range(2):
        log(client, 0, {"loss": 2.0}, {"loss": float("nan")})
    run = standin.runs["r1"]
    standin.crash_silent_runs("r1")
    assert (run.state, [row["_step"] for row in run.history]) == ("crashed", [0, 1])
    log(client, 2, {"loss": 1.0})
    assert (run.state, run.entity, run.config) == ("running", "lab", {"lr": 0.1})
    client.stream("r1", complete=True, exitcode=1)
    client.begin("r1", id=begun["bucket"]["id"])
    assert (run.state, run.exit_code, len(run.history)) == ("running", None, 3)
    assert client.begin("r1")["inserted"] is False
    assert run.history == []


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("query Q { nothing }", 200, "Cannot query field"),
        ("query Q { viewer { nothing } }", 200, "Cannot query field"),
        ("query Q { project(number: 1) { name } }", 200, "unexpected keyword argument"),
        ("mutation M { launch }", 200, "Cannot query field"),
        ("{ viewer(", 200, "Syntax Error"),
        ('mutation M { upsertSweep(input: {config: "method: magic"}) { sweep { id } } }', 200, "invalid sweep config"),
        ('mutation M { agentHeartbeat(input: {id: "of a deleted sweep"}) { commands } }', 404, "not found"),
        ('mutation M { upsertBucket(input: {entityName: "stranger"}) { inserted } }', 403, "permission denied"),
    ],
)
def test_what_cannot_be_done_is_refused(client: Client, query: str, status: int, message: str) -> None:
    found, answer, _ = client.post("/graphql", {"query": query})
    assert (found, message in answer["errors"][0]["message"]) == (status, True)


def test_injected_failures_are_used_up_in_order(standin: StandIn, client: Client) -> None:
    def begin(run_id: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        return client.post("/graphql", {"query": UPSERT_RUN, "variables": {"input": {"name": run_id}}})

    standin.faults.fail("UpsertBucket", status=429, retry_after=2)
    standin.faults.error("UpsertBucket", "try later")
    (status, _, headers), (_, error, _) = begin("failed"), begin("refused")
    assert (status, headers["Retry-After"], error["errors"][0]["message"]) == (429, "2", "try later")
    standin.faults.drop("UpsertBucket")
    standin.faults.drop("UpsertBucket", after=True)
    for run_id in ("lost", "carried out"):
        with pytest.raises(ConnectionError):
            begin(run_id)
    standin.faults.offline()
    with pytest.raises(ConnectionError):
        begin("offline")
    standin.faults.online()
    standin.faults.hang("UpsertBucket")
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(begin, "late")
        standin.wait_for(lambda server: "late" in server.runs)
        assert not late.done()
        standin.faults.clear()
        assert late.result(10)[0] == 200
    assert list(standin.runs) == ["carried out", "late"]
    assert [request.status for request in standin.requests] == [429, 200, 0, 0, 0, 200]
