"""A client of a few lines, without retries: speaks W&B's protocol as a run."""

import base64
import http.client
import json
from typing import Any

from tests.support.standin.server import StandIn

UPSERT_RUN = """mutation UpsertBucket($input: UpsertBucketInput!) {
  upsertBucket(input: $input) { bucket { id name sweepName historyLineCount } inserted } }"""
RESUME_STATUS = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { id historyLineCount } } }"""


class Client:
    """One keep-alive connection."""

    def __init__(self, server: StandIn) -> None:
        self.http = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        token = base64.b64encode(f"api:{server.api_key}".encode()).decode()
        self.headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}

    def close(self) -> None:
        self.http.close()

    def post(self, path: str, body: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """The status, the document and the headers of the answer."""
        try:
            self.http.request("POST", path, json.dumps(body), self.headers)
            answer = self.http.getresponse()
            return answer.status, json.loads(answer.read()), dict(answer.getheaders())
        except (http.client.HTTPException, OSError) as error:
            self.http.close()  # the next request connects again
            raise ConnectionError(f"{path}: {error!r}") from error

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of the answer; anything but success fails."""
        status, answer, _ = self.post("/graphql", {"query": query, "variables": variables})
        assert status == 200 and "errors" not in answer, (status, answer)
        return answer["data"]

    def begin(self, run_id: str, *, config: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
        """Start a run as wandb-core does; given its storage `id`, go on with it."""
        fields = {"name": run_id, "modelName": "faces", "host": "box", **given}
        if config is not None:
            fields["config"] = json.dumps({name: {"value": value} for name, value in config.items()})
        return self.graphql(UPSERT_RUN, input=fields)["upsertBucket"]

    def stream(self, run_id: str, project: str = "faces", **posted: Any) -> dict[str, Any]:
        status, answer, _ = self.post(f"/files/tester/{project}/{run_id}/file_stream", posted)
        assert status == 200, (status, answer)
        return answer
