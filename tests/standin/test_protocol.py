"""The stand-in server over the wire: what the tests of fersweep's own clients would not notice."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.standin.server import StandIn

UPSERT_RUN = """mutation UpsertBucket($input: UpsertBucketInput!) {
  upsertBucket(input: $input) { bucket { id } inserted } }"""


@pytest.fixture
def client(standin: StandIn) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=standin.url, auth=("api", standin.api_key), timeout=60, trust_env=False) as client:
        yield client


def begin(client: httpx.Client, run_id: str, **given: Any) -> httpx.Response:
    fields = {"name": run_id, "modelName": "faces", "host": "box", **given}
    return client.post("/graphql", json={"query": UPSERT_RUN, "variables": {"input": fields}})


def log(client: httpx.Client, offset: int, *rows: str) -> None:
    chunk = {"offset": offset, "content": rows}
    client.post("/files/tester/faces/r1/file_stream", json={"files": {"wandb-history.jsonl": chunk}})


def test_history_is_kept_once_and_by_a_run_that_is_resumed_only(standin: StandIn, client: httpx.Client) -> None:
    begun = begin(client, "r1").json()["data"]["upsertBucket"]
    for _ in range(2):
        log(client, 0, '{"loss": 2.0}', '{"loss": NaN}')
    run = standin.runs["r1"]
    standin.crash_silent_runs("r1")
    assert (run.state, len(run.history)) == ("crashed", 2)
    log(client, 2, '{"loss": 1.0}')
    assert (run.state, run.project) == ("running", "faces")
    client.post("/files/tester/faces/r1/file_stream", json={"complete": True, "exitcode": 1})
    begin(client, "r1", id=begun["bucket"]["id"])
    assert (run.state, run.exit_code, len(run.history)) == ("running", None, 3)
    begin(client, "r1")
    assert run.history == []


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("query Q { viewer { nothing } }", 200, "Cannot query field"),
        ("query Q { project(number: 1) { name } }", 200, "unexpected keyword argument"),
        ("{ viewer(", 200, "Syntax Error"),
        ('mutation M { upsertSweep(input: {config: "method: magic"}) { sweep { id } } }', 200, "invalid sweep config"),
        ('mutation M { agentHeartbeat(input: {id: "of a deleted sweep"}) { commands } }', 404, "not found"),
        ('mutation M { upsertBucket(input: {entityName: "stranger"}) { inserted } }', 403, "permission denied"),
    ],
)
def test_what_cannot_be_done_is_refused(client: httpx.Client, query: str, status: int, message: str) -> None:
    answer = client.post("/graphql", json={"query": query})
    assert (answer.status_code, message in answer.json()["errors"][0]["message"]) == (status, True)


def test_injected_failures_are_used_up_in_order(standin: StandIn, client: httpx.Client) -> None:
    standin.faults.fail("UpsertBucket", status=429, retry_after=2)
    standin.faults.error("UpsertBucket", "try later")
    failed, refused = begin(client, "failed"), begin(client, "refused")
    assert (failed.status_code, failed.headers["Retry-After"]) == (429, "2")
    assert refused.json()["errors"] == [{"message": "try later"}]
    standin.faults.drop("UpsertBucket")
    standin.faults.drop("UpsertBucket", after=True)
    for run_id in ("lost", "carried out"):
        with pytest.raises(httpx.TransportError):
            begin(client, run_id)
    standin.faults.offline()
    with pytest.raises(httpx.TransportError):
        begin(client, "offline")
    standin.faults.online()
    standin.faults.hang("UpsertBucket")
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(begin, client, "late")
        standin.wait_for(lambda server: "late" in server.runs)
        assert not late.done()
        standin.faults.clear()
        assert late.result(60).status_code == 200
    assert list(standin.runs) == ["carried out", "late"]
    assert [request.status for request in standin.requests] == [429, 200, 0, 0, 0, 200]
