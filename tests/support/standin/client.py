"""A client of a few lines, without retries: speaks W&B's protocol as an agent and as a run."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any

from tests.support.standin.server import StandIn

CREATE_SWEEP = """mutation UpsertSweep($input: UpsertSweepInput!) {
  upsertSweep(input: $input) { sweep { id name state } configValidationWarnings } }"""
CREATE_AGENT = """mutation CreateAgent($host: String!, $sweep: String!) {
  createAgent(input: {host: $host, sweep: $sweep}) { agent { id } } }"""
HEARTBEAT = """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
  agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands } }"""
UPSERT_RUN = """mutation UpsertBucket($input: UpsertBucketInput!) {
  upsertBucket(input: $input) { bucket { id name sweepName historyLineCount } inserted } }"""
RESUME_STATUS = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { id historyLineCount } } }"""


class Client:
    """One keep-alive connection."""

    def __init__(self, server: StandIn, key: str | None = None, timeout_s: float = 10) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.http = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        token = base64.b64encode(f"api:{server.api_key if key is None else key}".encode()).decode()
        self.headers = {"Authorization": f"Basic {token}"} if key != "" else {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    def post(self, path: str, body: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        try:
            self.http.request("POST", path, json.dumps(body), {**self.headers, "Content-Type": "application/json"})
            answer = self.http.getresponse()
            return answer.status, json.loads(answer.read() or b"{}"), dict(answer.getheaders())
        except (http.client.HTTPException, OSError) as error:
            self.http.close()  # the next request connects again
            raise ConnectionError(f"{path}: {error!r}") from error

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of the answer; anything but success fails."""
        status, answer, _ = self.post("/graphql", {"query": query, "variables": variables})
        assert status == 200 and "errors" not in answer, (status, answer)
        data: dict[str, Any] = answer["data"]
        return data

    def agent(self, sweep_id: str) -> str:
        return str(self.graphql(CREATE_AGENT, host="box", sweep=sweep_id)["createAgent"]["agent"]["id"])

    def beat(self, agent_id: str, *alive: str) -> list[dict[str, Any]]:
        """One heartbeat that reports these runs as alive: the commands."""
        state = json.dumps(dict.fromkeys(alive, True))
        data = self.graphql(HEARTBEAT, id=agent_id, metrics="{}", runState=state)
        commands: list[dict[str, Any]] = json.loads(data["agentHeartbeat"]["commands"])
        return commands

    def begin(
        self,
        run_id: str,
        sweep_id: str | None = None,
        project: str = "faces",
        config: dict[str, Any] | None = None,
        **given: Any,
    ) -> dict[str, Any]:
        """Start a run as wandb-core does; given its storage `id`, go on with it."""
        fields = {"name": run_id, "modelName": project, "host": "box", "sweep": sweep_id, **given}
        if config is not None:
            fields["config"] = json.dumps({name: {"value": value} for name, value in config.items()})
        upserted: dict[str, Any] = self.graphql(UPSERT_RUN, input=fields)["upsertBucket"]
        return upserted

    def stream(self, run_id: str, project: str = "faces", **posted: Any) -> dict[str, Any]:
        status, answer, _ = self.post(f"/files/tester/{project}/{run_id}/file_stream", posted)
        assert status == 200, (status, answer)
        return answer

    def log(self, run_id: str, *rows: dict[str, Any], offset: int = 0, project: str = "faces") -> dict[str, Any]:
        content = [json.dumps({"_step": offset + index, **row}) for index, row in enumerate(rows)]
        chunk = {"offset": offset, "content": content}
        return self.stream(run_id, project, files={"wandb-history.jsonl": chunk})

    def end(self, run_id: str, exit_code: int = 0) -> dict[str, Any]:
        return self.stream(run_id, complete=True, exitcode=exit_code)
