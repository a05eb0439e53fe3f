"""wandb, played by a few lines that speak to the stand-in over HTTP: a run starts and ends within milliseconds.

It enters where ``wandb_client.tracking`` gets the wandb package: agents, ``sync`` and ``TrackedRun`` are real.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import wandb

from tests.support.standin.server import StandIn

RESUME_STATUS = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { id historyLineCount } } }"""
UPSERT_RUN = """mutation UpsertBucket($input: UpsertBucketInput!) {
  upsertBucket(input: $input) { bucket { id } inserted } }"""
LABELS = {"displayName": "name", "groupName": "group", "jobType": "job_type", "notes": "notes", "tags": "tags"}
"""What UpsertBucket calls some of the arguments of ``wandb.init``."""


class ScriptedWandb:
    """What ``quiet_wandb`` gives: wandb's own settings, and an ``init`` that starts scripted runs."""

    Settings = wandb.Settings

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.runs: list[ScriptedRun] = []
        """Every run that was started, in order."""
        self.refused: list[str] = []
        """The ids of runs that could not be started as the server was out of reach."""
        self._http = httpx.Client(base_url=server.url, auth=("api", server.api_key), timeout=60, trust_env=False)

    def init(self, *, settings: wandb.Settings, **given: Any) -> ScriptedRun:
        try:
            self.runs.append(ScriptedRun(self, given, settings))
        except ConnectionError as error:
            self.refused.append(given["id"])
            raise wandb.errors.CommError("Run initialization has timed out") from error
        return self.runs[-1]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The document of an answer, which has to be a success."""
        try:
            answer = self._http.post(path, json=body).raise_for_status().json()
        except httpx.TransportError as error:
            raise ConnectionError(path) from error
        assert "errors" not in answer, answer
        return answer

    def close(self) -> None:
        self._http.close()


class ScriptedRun:
    """A run as far as fersweep can tell one from wandb's."""

    def __init__(self, owner: ScriptedWandb, given: dict[str, Any], settings: wandb.Settings) -> None:
        """Start it, with the arguments of ``wandb.init``."""
        self.id: str = given["id"]
        self.mode: str = settings.mode
        self.rows: list[dict[str, Any]] = []
        """What was logged in this process."""
        self.summary: dict[str, Any] = {}
        self.resumed, self.starting_step = False, 0
        self._owner, self._settings = owner, settings
        self._project, self._entity = given["project"] or "fersweep", given["entity"] or owner.server.entity
        self._line = 0
        """Of the history on the server, where the next row that is sent goes."""
        self._sent = 0
        if self.mode != "offline":
            self._begin(given)

    def _begin(self, given: dict[str, Any]) -> None:
        place = {"project": self._project, "entity": self._entity, "name": self.id}
        model = self._owner.post("/graphql", {"query": RESUME_STATUS, "variables": place})["data"]["model"]
        config = json.dumps({name: {"value": value} for name, value in given["config"].items()})
        fields = {"name": self.id, "modelName": self._project, "entityName": self._entity, "config": config}
        fields |= {"host": "box", "sweep": self._settings.sweep_id}
        fields |= {field: given[name] for field, name in LABELS.items()}
        if known := model and model["bucket"]:
            fields["id"] = known["id"]
            self._line = known["historyLineCount"]
            history = self._owner.server.runs[self.id].history
            self.starting_step = max((row["_step"] + 1 for row in history), default=0)
            self.resumed = bool(history)
        self._owner.post("/graphql", {"query": UPSERT_RUN, "variables": {"input": fields}})

    def define_metric(self, name: str, **how: Any) -> None:
        """The x axis is no matter here."""

    def log(self, row: dict[str, Any], *, step: int, commit: bool) -> None:
        """Keep a row, and send what the server has not got yet; a chart is sent as the name of its type."""
        plain = {k: v if isinstance(v, int | float | str) else type(v).__name__ for k, v in row.items()}
        self.rows.append({**plain, "_step": step})
        try:
            self._send_rows()
        except ConnectionError:
            return  # as wandb, which sends it later

    def mark_preempting(self) -> None:
        self._stream(preempting=True)

    def finish(self, exit_code: int = 0) -> None:
        """Send the rest, to a server that has to be within reach; wandb would wait for it."""
        self._send_rows()
        summary = {**(self.rows[-1] if self.rows else {}), **self.summary}
        self._stream(files={"wandb-summary.json": {"offset": 0, "content": [json.dumps(summary)]}})
        self._stream(complete=True, exitcode=exit_code)

    def _send_rows(self) -> None:
        if new := self.rows[self._sent :]:
            chunk = {"offset": self._line, "content": [json.dumps(row) for row in new]}
            self._stream(files={"wandb-history.jsonl": chunk})
            self._line, self._sent = self._line + len(new), len(self.rows)

    def _stream(self, **posted: Any) -> None:
        path = f"/files/{self._entity}/{self._project}/{self.id}/file_stream"
        if self.mode != "offline" and self._owner.post(path, posted)["stopped"]:
            self._settings.stop_fn()
