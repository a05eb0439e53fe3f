"""The roots of the GraphQL queries and mutations, and the objects between them and runs, artifacts and views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.support.standin import artifacts, scheduler
from tests.support.standin.filters import matches, ordered
from tests.support.standin.graphql import Fields
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.places import connection, entity_fields, project_fields, user_fields
from tests.support.standin.runs import file_fields, run_fields, upsert_run
from tests.support.standin.state import Artifact, Project, Run, Store, Sweep
from tests.support.standin.views import upsert_view, view_fields

Input = dict[str, Any]


def sweep_fields(store: Store, sweep: Sweep) -> Fields:
    return {
        "__typename": "Sweep",
        "id": sweep.storage_id,
        "name": sweep.id,
        "displayName": sweep.config.get("name"),
        "method": sweep.config.get("method"),
        "state": sweep.state,
        "description": sweep.description,
        "config": sweep.config_text,
        "createdAt": sweep.created_at,
        "updatedAt": sweep.updated_at,
        "heartbeatAt": sweep.updated_at,
        "earlyStopJobRunning": False,
        "controller": sweep.controller,
        "scheduler": sweep.scheduler,
        "bestLoss": None,
        "project": lambda: project_fields(store, sweep.entity, sweep.project),
        "runs": lambda first=None, after=None: connection(
            [run_fields(store, run) for run in store.sweep_runs(sweep)], first, after
        ),
    }


def whole_project_fields(store: Store, project: Project) -> Fields:
    """A project with all that is in it."""
    key = (project.entity, project.name)

    def runs(
        filters: str | None = None, first: int | None = None, after: str | None = None, order: str | None = None
    ) -> Fields:
        wanted = json.loads(filters) if filters else {}
        found = ordered([run for run in store.project_runs(*key) if matches(run, wanted)], order)
        return connection([run_fields(store, run) for run in found], first, after)

    def run(name: str, missingOk: bool = False) -> Fields | None:
        found = store.runs.get(name)
        return run_fields(store, found) if found and (found.entity, found.project) == key else None

    def sweep(sweepName: str) -> Fields | None:
        found = store.sweeps.get(sweepName)
        return sweep_fields(store, found) if found and (found.entity, found.project) == key else None

    def views(viewType: str | None = None, viewName: str | None = None, userName: str | None = None) -> Fields:
        own = [view for view in store.views.values() if (view.entity, view.project) == key]
        found = [v for v in own if viewType in (None, v.type) and viewName in (None, v.name)]
        return connection([view_fields(store, view) for view in found])

    def artifact(name: str) -> Fields | None:
        wanted, _, alias = name.partition(":")
        own = [a for a in store.artifacts.values() if (a.entity, a.project, a.name) == (*key, wanted)]
        found = [a for a in own if alias in (f"v{a.version}", *a.aliases)]
        return {"artifact": artifacts.artifact_fields(store, found[-1])} if found else None

    return {
        **project_fields(store, *key),
        "user": user_fields(store),
        "runs": runs,
        "run": run,
        "bucket": run,
        "sweep": sweep,
        "allViews": views,
        "artifactCollectionMembership": artifact,
    }


def query(store: Store, features: Sequence[str]) -> Fields:
    def project(name: str | None = None, entityName: str | None = None) -> Fields | None:
        found = store.projects.get((entityName or store.entity, name or "uncategorized"))
        return whole_project_fields(store, found) if found else None

    def models(entityName: str | None = None, first: int | None = None, after: str | None = None) -> Fields:
        own = [found for (entity, _), found in store.projects.items() if entity == (entityName or store.entity)]
        return connection([whole_project_fields(store, found) for found in own], first, after)

    return {
        "__typename": "Query",
        "viewer": user_fields(store),
        "serverInfo": {
            "features": [{"name": name, "isEnabled": True} for name in features],
            "cliVersionInfo": json.dumps({"max_cli_version": "0.31.0", "min_cli_version": "0.10.0"}),
            "latestLocalVersionInfo": None,
        },
        "entity": lambda name: entity_fields(name) if name in store.entities else None,
        "project": project,
        "model": project,
        "models": models,
        "view": lambda id: view_fields(store, store.views[id]) if id in store.views else None,
    }


class Mutations:
    """Every public method is a mutation."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fields(self) -> Fields:
        return {name: getattr(self, name) for name in vars(type(self)) if not name.startswith("_") and name != "fields"}

    def _entity(self, given: Input) -> str:
        """The entity to write to; one that the key may not write to is refused as the real server words it."""
        entity = given.get("entityName") or self._store.entity
        if entity not in self._store.entities:
            raise GraphQLError("permission denied", status=403, code="PERMISSION_ERROR")
        return str(entity)

    def _run(self, name: str) -> Run:
        if name not in self._store.runs:
            raise GraphQLError(f"run {name} not found", status=404)
        return self._store.runs[name]

    # sweeps

    def upsertSweep(self, input: Input) -> Fields:
        entity = self._entity(input)
        warnings: list[str] = []
        if input.get("id"):
            found = [sweep for sweep in self._store.sweeps.values() if input["id"] in (sweep.storage_id, sweep.id)]
            if not found:
                raise GraphQLError("sweep not found", status=404)
            sweep = found[0]
        else:
            project, text = input.get("projectName") or "uncategorized", input.get("config") or ""
            sweep, warnings = scheduler.create_sweep(self._store, entity, project, text)
            sweep.controller, sweep.description = input.get("controller"), input.get("description")
            sweep.scheduler = input.get("scheduler") or input.get("launchScheduler")
        if input.get("state"):
            scheduler.set_state(self._store, sweep, input["state"])
        return {"sweep": sweep_fields(self._store, sweep), "configValidationWarnings": warnings}

    def createAgent(self, input: Input) -> Fields:
        self._entity(input)
        sweep = self._store.sweeps.get(input["sweep"])
        if sweep is None:
            raise GraphQLError(f"sweep {input['sweep']} not found", status=404)
        return {"agent": {"id": scheduler.create_agent(self._store, sweep).id}}

    def agentHeartbeat(self, input: Input) -> Fields:
        commands = scheduler.heartbeat(self._store, input["id"], json.loads(input.get("runState") or "{}"))
        return {"agent": {"id": input["id"]}, "commands": json.dumps(commands)}

    # runs

    def upsertBucket(self, input: Input) -> Fields:
        run, inserted = upsert_run(self._store, self._entity(input), input)
        return {"bucket": run_fields(self._store, run), "inserted": inserted}

    def createRunFiles(self, input: Input) -> Fields:
        self._entity(input)
        run = self._run(input["runName"])
        files = [file_fields(self._store, run, name) for name in input["files"]]
        return {"runID": run.storage_id, "uploadHeaders": [], "files": files}

    # projects and views

    def upsertModel(self, input: Input) -> Fields:
        project = project_fields(self._store, self._entity(input), input["name"])
        return {"project": project, "model": project, "inserted": True}

    def upsertView(self, input: Input) -> Fields:
        self._entity(input)
        view, inserted = upsert_view(self._store, input)
        return {"view": view_fields(self._store, view), "inserted": inserted}

    # artifacts

    def _artifact(self, input: Input) -> Artifact:
        return artifacts.find(self._store, input["artifactID"])

    def createArtifact(self, input: Input) -> Fields:
        artifact = artifacts.create(self._store, self._entity(input), input)
        return {"artifact": artifacts.artifact_fields(self._store, artifact)}

    def createArtifactManifest(self, input: Input) -> Fields:
        return {"artifactManifest": artifacts.manifest_fields(self._store, self._artifact(input))}

    def createArtifactFiles(self, input: Input) -> Fields:
        files = [artifacts.file_fields(self._store, self._artifact(f), f["name"]) for f in input["artifactFiles"]]
        return {"files": connection(files)}

    def commitArtifact(self, input: Input) -> Fields:
        artifact = self._artifact(input)
        artifacts.commit(self._store, artifact)
        return {"artifact": artifacts.artifact_fields(self._store, artifact)}
