"""The GraphQL types of a run and its files."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from tests.support.standin.artifact_node import ArtifactNode
from tests.support.standin.graphql import Node, resolves
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.nodes import UserNode, connection, project_fields, strict
from tests.support.standin.state import Run, Store, node_id


class FileNode(Node):
    """A file of a run."""

    typename = "File"

    def __init__(self, store: Store, run: Run, name: str) -> None:
        self.store, self.run, self.file = store, run, name

    def content(self) -> bytes:
        return self.run.files.get(self.file, b"")

    @resolves
    def id(self) -> str:
        return node_id("File", self.run.id, self.file)

    @resolves
    def name(self) -> str:
        return self.file

    @resolves
    def url(self, upload: bool | None = None) -> str:
        return run_file_url(self.store, self.run, self.file)

    @resolves
    def directUrl(self) -> str:
        return run_file_url(self.store, self.run, self.file)

    @resolves
    def uploadUrl(self) -> str:
        return run_file_url(self.store, self.run, self.file)

    @resolves
    def sizeBytes(self) -> int:
        return len(self.content())

    @resolves
    def mimetype(self) -> str:
        return "application/octet-stream"

    @resolves
    def updatedAt(self) -> str:
        return self.run.heartbeat_at

    @resolves
    def md5(self) -> str:
        return hashlib.md5(self.content()).hexdigest()


def run_file_url(store: Store, run: Run, name: str) -> str:
    return f"{store.url}/storage/runs/{quote(run.id, safe='')}/{quote(name)}"


class RunNode(Node):
    typename = "Run"

    def __init__(self, store: Store, run: Run) -> None:
        self.store, self.run = store, run

    @resolves
    def id(self) -> str:
        return self.run.storage_id

    @resolves
    def internalId(self) -> str:
        return self.run.storage_id

    @resolves
    def projectId(self) -> str:
        return str(self.store.project(self.run.entity, self.run.project).internal_id)

    @resolves
    def name(self) -> str:
        return self.run.id

    @resolves
    def displayName(self) -> str:
        return self.run.display_name

    @resolves
    def description(self) -> str | None:
        return self.run.description

    @resolves
    def notes(self) -> str | None:
        return self.run.notes

    @resolves
    def tags(self) -> list[str]:
        return list(self.run.tags)

    @resolves
    def group(self) -> str | None:
        return self.run.group

    @resolves
    def groupName(self) -> str | None:
        return self.run.group

    @resolves
    def jobType(self) -> str | None:
        return self.run.job_type

    @resolves
    def host(self) -> str | None:
        return self.run.host

    @resolves
    def commit(self) -> str | None:
        return self.run.commit

    @resolves
    def readOnly(self) -> bool:
        return False

    @resolves
    def state(self) -> str:
        return self.run.state

    @resolves
    def running(self) -> bool:
        return self.run.state == "running"

    @resolves
    def failed(self) -> bool:
        return self.run.state == "failed"

    @resolves
    def stopped(self) -> bool:
        return self.run.stopped

    @resolves
    def shouldStop(self) -> bool:
        return self.run.stopped

    @resolves
    def exitcode(self) -> int | None:
        return self.run.exit_code

    @resolves
    def sweepName(self) -> str | None:
        return self.run.sweep_id

    @resolves
    def createdAt(self) -> str:
        return self.run.created_at

    @resolves
    def updatedAt(self) -> str:
        return self.run.heartbeat_at

    @resolves
    def heartbeatAt(self) -> str:
        return self.run.heartbeat_at

    @resolves
    def user(self) -> Node:
        return UserNode(self.store)

    @resolves
    def project(self) -> dict[str, Any]:
        return project_fields(self.store, self.run.entity, self.run.project)

    @resolves
    def config(self) -> str:
        wrapped = {name: {"value": value, "desc": None} for name, value in self.run.config.items()}
        if self.run.wandb_config:
            wrapped["_wandb"] = {"value": self.run.wandb_config, "desc": None}
        return json.dumps(wrapped)

    @resolves
    def wandbConfig(self, keys: list[str]) -> str:
        """Part of `_wandb`; a run without `t` was made ahead of time and has never started."""
        return json.dumps({key: self.run.wandb_config[key] for key in keys if key in self.run.wandb_config})

    @resolves
    def summaryMetrics(self) -> str:
        return json.dumps(self.run.summary)

    @resolves
    def systemMetrics(self) -> str:
        return json.dumps(self.run.events[-1] if self.run.events else {})

    @resolves
    def historyLineCount(self) -> int:
        return len(self.run.history)

    @resolves
    def eventsLineCount(self) -> int:
        return len(self.run.events)

    @resolves
    def logLineCount(self) -> int:
        return len(self.run.console)

    @resolves
    def historyTail(self) -> str:
        return json.dumps([json.dumps(row) for row in self.run.history[-1:]])

    @resolves
    def eventsTail(self) -> str:
        return json.dumps([json.dumps(row) for row in self.run.events[-1:]])

    @resolves
    def historyKeys(self, format: str | None = None) -> dict[str, Any] | None:
        if not self.run.history:
            return None
        names = sorted({name for row in self.run.history for name in row})
        keys = {name: {"typeCounts": [{"type": "number", "count": len(self.run.history)}]} for name in names}
        return {"lastStep": self.run.last_step, "keys": keys, "sets": []}

    def steps(self, low: float | None, high: float | None) -> list[dict[str, Any]]:
        """The rows whose step is in [low, high)."""
        rows = ((row.get("_step", index), row) for index, row in enumerate(self.run.history))
        return [row for step, row in rows if (low is None or step >= low) and (high is None or step < high)]

    @resolves
    def history(
        self, minStep: float | None = None, maxStep: float | None = None, samples: int | None = None
    ) -> list[str]:
        return [json.dumps(row) for row in thinned(self.steps(minStep, maxStep), samples)]

    @resolves
    def events(self, samples: int | None = None) -> list[str]:
        return [json.dumps(row) for row in thinned(self.run.events, samples)]

    @resolves
    def sampledHistory(self, specs: list[str]) -> list[Any]:
        answer = []
        for text in specs:
            spec = json.loads(text)
            keys = spec.get("keys", [])
            high = spec.get("maxStep")
            rows = self.steps(spec.get("minStep"), None if high is None else high + 1)
            complete = [{key: row[key] for key in keys} if keys else row for row in rows if all(k in row for k in keys)]
            answer.append(strict(thinned(complete, spec.get("samples"))))
        return answer

    @resolves
    def parquetHistory(self, liveKeys: list[str]) -> dict[str, Any]:
        """Nothing is exported to parquet here: all history is live."""
        return {"parquetUrls": [], "liveData": [{"_step": row.get("_step", 0)} for row in self.run.history[:1]]}

    @resolves
    def logLines(
        self,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        useImprovedPagination: bool | None = None,
    ) -> dict[str, Any]:
        lines = [
            {"number": number, "timestamp": None, "level": "info", "label": "", "line": line}
            for number, line in enumerate(self.run.console)
        ]
        return connection(lines[-last:] if last else lines, first, after)

    @resolves
    def fileCount(self) -> int:
        return len(self.run.files)

    @resolves
    def files(
        self,
        names: list[str] | None = None,
        first: int | None = None,
        after: str | None = None,
        pattern: str | None = None,
    ) -> dict[str, Any]:
        if pattern:
            raise GraphQLError("patterns of file names are not in the stand-in")
        found = [name for name in sorted(self.run.files) if not names or name in names]
        return connection([FileNode(self.store, self.run, name) for name in found], first, after)

    @resolves
    def outputArtifacts(self, first: int | None = None, after: str | None = None) -> dict[str, Any]:
        return connection([ArtifactNode(self.store, artifact) for artifact in self.run.artifacts], first, after)

    @resolves
    def inputArtifacts(self, first: int | None = None, after: str | None = None) -> dict[str, Any]:
        return connection([ArtifactNode(self.store, artifact) for artifact in self.run.used_artifacts], first, after)


def thinned(rows: list[Any], samples: int | None) -> list[Any]:
    """At most this many rows, evenly apart, as the server samples long histories."""
    if not samples or len(rows) <= samples:
        return rows
    return [rows[index * len(rows) // samples] for index in range(samples)]
