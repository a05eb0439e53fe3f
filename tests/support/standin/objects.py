"""The records as GraphQL objects, and pages of them."""

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from tests.support.standin.graphql import Fields
from tests.support.standin.state import Artifact, Project, Run, Store, Sweep, View, node_id, now


def attributes(record: Any) -> dict[str, Any]:
    """A record's attributes as fields, named as GraphQL names them; a time that is not kept is the present."""
    named = {re.sub(r"_(\w)", lambda match: match[1].upper(), name): value for name, value in vars(record).items()}
    return {"__typename": type(record).__name__, "createdAt": now(), "updatedAt": now(), "heartbeatAt": now(), **named}


def connection(items: Sequence[Any], first: int | None = None, after: str | None = None) -> Fields:
    """A page of items; a cursor is how many items end with it."""
    start = int(after or 0)
    stop = start + (len(items) if first is None else first)
    edges = [{"node": item, "cursor": str(start + index + 1)} for index, item in enumerate(items[start:stop])]
    info = {"__typename": "PageInfo", "hasNextPage": stop < len(items), "endCursor": str(stop)}
    return {"edges": edges, "pageInfo": info}


def user_fields(store: Store) -> Fields:
    return {
        **dict.fromkeys(("entity", "username", "name"), store.entity),
        "__typename": "User",
        "id": node_id("User", 1),
        "email": f"{store.entity}@example.com",
        "admin": False,
        "flags": "{}",
        "deletedAt": None,
        "apiKeys": connection([]),
        "teams": connection([{"name": name} for name in store.entities]),
    }


def entity_fields(name: str) -> Fields:
    return {
        "__typename": "Entity",
        "id": node_id("Entity", name),
        "name": name,
        "organization": {"coreWeaveOrganizationId": None},
    }


def project_fields(project: Project) -> Fields:
    """A project as its sweeps, runs and views show it."""
    return {
        **attributes(project),
        "id": node_id("Project", "v1", project.name, project.entity),
        "entityName": project.entity,
        "entity": entity_fields(project.entity),
        "isBenchmark": False,
    }


def sweep_fields(store: Store, sweep: Sweep) -> Fields:
    return {
        **attributes(sweep),
        "id": sweep.storage_id,
        "name": sweep.id,
        "displayName": sweep.config.get("name"),
        "method": sweep.config.get("method"),
        "config": sweep.config_text,
        "earlyStopJobRunning": False,
        "bestLoss": None,
        "project": project_fields(store.project(sweep.entity, sweep.project)),
        "runs": lambda **page: connection([run_fields(store, run) for run in store.sweep_runs(sweep)], **page),
    }


def run_fields(store: Store, run: Run) -> Fields:
    config = {
        name: {"value": value, "desc": None} for name, value in {**run.config, "_wandb": run.wandb_config}.items()
    }
    return {
        **attributes(run),
        "id": run.storage_id,
        "name": run.id,
        "description": None,
        "sweepName": run.sweep_id,
        "project": project_fields(store.project(run.entity, run.project)),
        "config": json.dumps(config),
        # A run without `t` was made ahead of time and has never started.
        "wandbConfig": lambda keys: json.dumps({k: run.wandb_config[k] for k in keys if k in run.wandb_config}),
        "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(run.history),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "eventsTail": "[]",
    }


def view_fields(store: Store, view: View) -> Fields:
    project = project_fields(store.project(view.entity, view.project))
    return {**attributes(view), "user": user_fields(store), "project": project}


def versions(store: Store, artifact: Artifact) -> list[Artifact]:
    """The committed artifacts of the same collection, oldest first."""
    key = (artifact.entity, artifact.project, artifact.name)
    own = [other for other in store.artifacts.values() if (other.entity, other.project, other.name) == key]
    return [other for other in own if other.version is not None]


def artifact_fields(store: Store, artifact: Artifact) -> Fields:
    latest = [{"id": other.id, "versionIndex": other.version} for other in versions(store, artifact)[-1:]]
    return {
        **attributes(artifact),
        "state": "PENDING" if artifact.version is None else "COMMITTED",
        "artifactSequence": {"__typename": "ArtifactSequence", "latestArtifact": latest[0] if latest else None},
    }


def file_fields(store: Store, owner: Run | Artifact, name: str) -> Fields:
    """A file of a run or an artifact, and where to put it."""
    return {
        "__typename": "File",
        "id": node_id("File", owner.id, name),
        "name": name,
        "uploadUrl": f"{store.url}/storage/{type(owner).__name__.lower()}s/{quote(owner.id, safe='')}/{quote(name)}",
        "uploadHeaders": [],
        "uploadMultipartUrls": None,
        "storagePath": f"{owner.id}/{name}",
        "artifact": {"id": owner.id},
    }
