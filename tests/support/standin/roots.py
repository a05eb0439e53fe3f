"""The roots of the GraphQL queries and mutations."""

import json
from operator import attrgetter
from typing import Any

from tests.support.standin import objects, scheduler
from tests.support.standin.graphql import Fields, Refused
from tests.support.standin.objects import connection
from tests.support.standin.runs import upsert_run
from tests.support.standin.state import Agent, Artifact, Project, Run, Store, View, node_id

Input = dict[str, Any]
COLUMNS = {"name": "id", "state": "state", "sweep": "sweep_id", "created_at": "created_at", "createdAt": "created_at"}
"""What filters and orders of runs call their attributes."""


def matches(run: Run, wanted: Input) -> bool:
    """Whether a run passes a filter in MongoDB's language, of which clients use this much."""
    allowed = {name: value["$in"] if isinstance(value, dict) else [value] for name, value in wanted.items()}
    return all(getattr(run, COLUMNS[name]) in values for name, values in allowed.items())


def whole_project_fields(store: Store, project: Project) -> Fields:
    """A project with all that is in it."""
    place = (project.entity, project.name)

    def runs(filters: str = "{}", order: str = "+created_at", **page: Any) -> Fields:
        found = [run for run in store.project_runs(*place) if matches(run, json.loads(filters))]
        found.sort(key=attrgetter(COLUMNS[order.lstrip("+-")]), reverse=order.startswith("-"))
        return connection([objects.run_fields(store, run) for run in found], **page)

    def run(name: str, missingOk: bool = False) -> Fields | None:
        found = store.runs.get(name)
        return objects.run_fields(store, found) if found and (found.entity, found.project) == place else None

    def sweep(sweepName: str) -> Fields | None:
        found = store.sweeps.get(sweepName)
        return objects.sweep_fields(store, found) if found and (found.entity, found.project) == place else None

    def views(viewType: str = "", viewName: str = "", userName: str = "") -> Fields:
        own = [view for view in store.views.values() if (view.entity, view.project) == place]
        found = [view for view in own if viewType in ("", view.type) and viewName in ("", view.name)]
        return connection([objects.view_fields(store, view) for view in found])

    return {
        **objects.project_fields(project),
        "user": objects.user_fields(store),
        "runs": runs,
        "run": run,
        "bucket": run,
        "sweep": sweep,
        "allViews": views,
    }


def query(store: Store) -> Fields:
    def project(name: str = "uncategorized", entityName: str = store.entity) -> Fields | None:
        found = store.projects.get((entityName, name))
        return whole_project_fields(store, found) if found else None

    def models(entityName: str = store.entity, **page: Any) -> Fields:
        own = [found for (entity, _), found in store.projects.items() if entity == entityName]
        return connection([whole_project_fields(store, found) for found in own], **page)

    features = ("MARK_RUN_FILES_UPLOADED", "SWEEPS_QUERY_FILTERING", "FILESTREAM_GZIP")
    return {
        "__typename": "Query",
        "viewer": objects.user_fields(store),
        "serverInfo": {"features": [{"name": name, "isEnabled": True} for name in features]},
        "entity": lambda name: objects.entity_fields(name) if name in store.entities else None,
        "project": project,
        "model": project,
        "models": models,
        "view": lambda id: objects.view_fields(store, store.views[id]) if id in store.views else None,
    }


class Mutations:
    """Every public method is a mutation."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _entity(self, given: Input) -> str:
        """The entity to write to; one that the key may not write to is refused as the real server words it."""
        entity = given.get("entityName") or self._store.entity
        if entity not in self._store.entities:
            raise Refused("permission denied", status=403)
        return str(entity)

    def _project(self, given: Input) -> Project:
        return self._store.project(self._entity(given), given.get("projectName") or "uncategorized")

    def upsertSweep(self, input: Input) -> Fields:
        project, warnings = self._project(input), []
        if input.get("id"):
            found = (sweep for sweep in self._store.sweeps.values() if input["id"] in (sweep.storage_id, sweep.id))
            if (sweep := next(found, None)) is None:
                raise Refused("sweep not found")
        else:
            text = input.get("config") or ""
            sweep, warnings = scheduler.create_sweep(self._store, project.entity, project.name, text)
            sweep.description = input.get("description")
        if input.get("state"):
            scheduler.set_state(self._store, sweep, input["state"])
        return {"sweep": objects.sweep_fields(self._store, sweep), "configValidationWarnings": warnings}

    def createAgent(self, input: Input) -> Fields:
        sweep = self._store.sweeps.get(input["sweep"])
        if sweep is None:
            raise Refused(f"sweep {input['sweep']} not found")
        sweep.agents.append(Agent(node_id("Agent", self._store.number())))
        return {"agent": {"id": sweep.agents[-1].id}}

    def agentHeartbeat(self, input: Input) -> Fields:
        commands = scheduler.heartbeat(self._store, input["id"], json.loads(input.get("runState") or "{}"))
        return {"agent": {"id": input["id"]}, "commands": json.dumps(commands)}

    def upsertBucket(self, input: Input) -> Fields:
        run, inserted = upsert_run(self._store, self._entity(input), input)
        return {"bucket": objects.run_fields(self._store, run), "inserted": inserted}

    def createRunFiles(self, input: Input) -> Fields:
        run = self._store.runs[input["runName"]]
        files = [objects.file_fields(self._store, run, name) for name in input["files"]]
        return {"runID": run.storage_id, "uploadHeaders": [], "files": files}

    def upsertView(self, input: Input) -> Fields:
        project, is_new = self._project(input), not input.get("id")
        if is_new:
            view = View(node_id("View", self._store.number()), project.entity, project.name)
            self._store.views[view.id] = view
        elif input["id"] in self._store.views:
            view = self._store.views[input["id"]]
        else:
            raise Refused("view not found")
        view.display_name = input.get("displayName") or view.display_name
        for name in ("type", "name", "description", "spec"):
            setattr(view, name, input.get(name) or getattr(view, name))
        return {"view": objects.view_fields(self._store, view), "inserted": is_new}

    def _artifact(self, input: Input) -> Artifact:
        return self._store.artifacts[input["artifactID"]]

    def createArtifact(self, input: Input) -> Fields:
        project = self._project(input)
        artifact = Artifact(
            id=node_id("Artifact", self._store.number()),
            entity=project.entity,
            project=project.name,
            type=input["artifactTypeName"],
            name=(input.get("artifactCollectionNames") or [input.get("artifactCollectionName")])[0],
            digest=input["digest"],
            run_id=input.get("runName"),
        )
        self._store.artifacts[artifact.id] = artifact
        return {"artifact": objects.artifact_fields(self._store, artifact)}

    def createArtifactManifest(self, input: Input) -> Fields:
        artifact = self._artifact(input)
        file = objects.file_fields(self._store, artifact, "wandb_manifest.json")
        return {"artifactManifest": {"id": node_id("ArtifactManifest", artifact.id), "file": file}}

    def createArtifactFiles(self, input: Input) -> Fields:
        files = [
            objects.file_fields(self._store, self._artifact(file), file["name"]) for file in input["artifactFiles"]
        ]
        return {"files": connection(files)}

    def commitArtifact(self, input: Input) -> Fields:
        artifact = self._artifact(input)
        if artifact.version is None:
            artifact.version = len(objects.versions(self._store, artifact))
        return {"artifact": objects.artifact_fields(self._store, artifact)}


def mutations(store: Store) -> Fields:
    root = Mutations(store)
    return {name: getattr(root, name) for name in dir(root) if not name.startswith("_")}
