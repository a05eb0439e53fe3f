"""The root of the GraphQL mutations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.support.standin import artifacts, scheduler
from tests.support.standin.artifact_file_node import ArtifactFileNode, ManifestNode
from tests.support.standin.artifact_node import ArtifactNode
from tests.support.standin.graphql import Node, resolves
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.nodes import project_fields
from tests.support.standin.queries import ProjectNode
from tests.support.standin.run_node import FileNode, RunNode
from tests.support.standin.runs import delete_run, upsert_run
from tests.support.standin.state import Run, Store, Sweep
from tests.support.standin.sweep_node import AgentNode, SweepNode
from tests.support.standin.views import ViewNode, upsert_view

Input = dict[str, Any]


class Mutation(Node):
    typename = "Mutation"

    def __init__(self, store: Store) -> None:
        self.store = store

    def entity(self, given: Input) -> str:
        """The entity to write to; one that the key may not write to is refused as the real server words it."""
        entity = given.get("entityName") or self.store.entity
        if entity not in self.store.entities:
            raise GraphQLError("permission denied", status=403, code="PERMISSION_ERROR")
        return str(entity)

    def run(self, name: str | None) -> Run:
        run = self.store.runs.get(name or "")
        if run is None:
            raise GraphQLError(f"run {name} not found", status=404)
        return run

    def run_by_id(self, storage_id: str) -> Run:
        run = self.store.run_by_storage_id(storage_id)
        if run is None:
            raise GraphQLError("run not found", status=404)
        return run

    # sweeps

    def sweep(self, storage_id: str) -> Sweep:
        found = [sweep for sweep in self.store.sweeps.values() if storage_id in (sweep.storage_id, sweep.id)]
        if not found:
            raise GraphQLError("sweep not found", status=404)
        return found[0]

    @resolves
    def upsertSweep(self, input: Input) -> dict[str, Any]:
        entity = self.entity(input)
        warnings: list[str] = []
        fields = {
            "controller": input.get("controller"),
            "scheduler": input.get("scheduler") or input.get("launchScheduler"),
            "display_name": input.get("displayName"),
            "description": input.get("description"),
        }
        sent = {name: value for name, value in fields.items() if value is not None}
        if input.get("id"):
            sweep = self.sweep(input["id"])
            if input.get("config"):
                sweep.config, warnings = scheduler.parse_config(input["config"])
                sweep.config_text = input["config"]
                sweep.exhausted = False
            for name, value in sent.items():
                setattr(sweep, name, value)
        else:
            project = input.get("projectName") or "uncategorized"
            sweep, warnings = scheduler.create_sweep(self.store, entity, project, input.get("config") or "", **sent)
        if input.get("state"):
            scheduler.set_state(self.store, sweep, input["state"])
        return {"sweep": SweepNode(self.store, sweep), "configValidationWarnings": warnings}

    @resolves
    def deleteSweep(self, input: Input) -> dict[str, Any]:
        del self.store.sweeps[self.sweep(input["id"]).id]
        return {"success": True, "clientMutationId": None}

    @resolves
    def createAgent(self, input: Input) -> dict[str, Any]:
        self.entity(input)
        sweep = self.store.sweeps.get(input["sweep"])
        if sweep is None:
            raise GraphQLError(f"sweep {input['sweep']} not found", status=404)
        agent = scheduler.create_agent(self.store, sweep, input["host"])
        return {"agent": AgentNode(self.store, agent)}

    @resolves
    def agentHeartbeat(self, input: Input) -> dict[str, Any]:
        commands = scheduler.heartbeat(self.store, input["id"], json.loads(input.get("runState") or "{}"))
        return {"agent": AgentNode(self.store, self.store.agents[input["id"]]), "commands": json.dumps(commands)}

    # runs

    @resolves
    def upsertBucket(self, input: Input) -> dict[str, Any]:
        entity = self.entity(input)
        run, inserted = upsert_run(self.store, entity, input)
        return {"bucket": RunNode(self.store, run), "inserted": inserted}

    @resolves
    def stopRun(self, input: Input) -> dict[str, Any]:
        self.run_by_id(input["id"]).stopped = True
        return {"success": True, "clientMutationId": None}

    @resolves
    def deleteRun(self, input: Input) -> dict[str, Any]:
        delete_run(self.store, self.run_by_id(input["id"]))
        return {"success": True, "clientMutationId": None}

    @resolves
    def updateRunState(self, input: Input) -> dict[str, Any]:
        run = self.run_by_id(input["id"])
        if run.sweep_id:
            raise GraphQLError("the state of a sweep run cannot be updated")
        run.state = input["state"]
        return {"success": True}

    @resolves
    def createRunFiles(self, input: Input) -> dict[str, Any]:
        self.entity(input)
        run = self.run(input["runName"])
        files = [FileNode(self.store, run, name) for name in input["files"]]
        return {"runID": run.storage_id, "uploadHeaders": [], "files": files}

    @resolves
    def markRunFilesUploaded(self, input: Input) -> dict[str, Any]:
        self.run(input["runName"])
        return {"success": True}

    @resolves
    def notifyScriptableRunAlert(self, input: Input) -> dict[str, Any]:
        self.run(input["runName"]).alerts.append({name: input.get(name) for name in ("title", "text", "severity")})
        return {"success": True}

    # projects and views

    @resolves
    def upsertModel(self, input: Input) -> dict[str, Any]:
        entity = self.entity(input)
        inserted = (entity, input["name"]) not in self.store.projects
        project = ProjectNode(self.store, self.store.project(entity, input["name"]))
        return {"project": project, "model": project, "inserted": inserted}

    @resolves
    def upsertView(self, input: Input) -> dict[str, Any]:
        self.entity(input)
        view, inserted = upsert_view(self.store, input)
        return {"view": ViewNode(self.store, view), "inserted": inserted}

    @resolves
    def deleteView(self, input: Input) -> dict[str, Any]:
        return {"success": self.store.views.pop(input["id"], None) is not None, "pendingDrafts": []}

    @resolves
    def createCustomChart(self, input: Input) -> dict[str, Any]:
        self.store.charts.append(dict(input))
        return {"chart": {"id": f"{input['entity']}/{input['name']}"}}

    # artifacts

    def artifact(self, artifact_id: str) -> ArtifactNode:
        if artifact_id not in self.store.artifacts:
            raise GraphQLError("artifact not found", status=404)
        return ArtifactNode(self.store, self.store.artifacts[artifact_id])

    @resolves
    def createArtifact(self, input: Input) -> dict[str, Any]:
        artifact = artifacts.create(self.store, self.entity(input), input)
        return {"artifact": ArtifactNode(self.store, artifact)}

    @resolves
    def createArtifactManifest(self, input: Input) -> dict[str, Any]:
        return {"artifactManifest": ManifestNode(self.store, self.artifact(input["artifactID"]).of)}

    @resolves
    def createArtifactFiles(self, input: Input) -> dict[str, Any]:
        files: Iterable[Input] = input["artifactFiles"]
        nodes = [ArtifactFileNode(self.store, self.artifact(file["artifactID"]).of, file["name"]) for file in files]
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    @resolves
    def commitArtifact(self, input: Input) -> dict[str, Any]:
        node = self.artifact(input["artifactID"])
        artifacts.commit(self.store, node.of)
        return {"artifact": node}

    @resolves
    def updateArtifact(self, input: Input) -> dict[str, Any]:
        node = self.artifact(input["artifactID"])
        artifacts.update(self.store, node.of, input)
        return {"artifact": node}

    @resolves
    def useArtifact(self, input: Input) -> dict[str, Any]:
        node = self.artifact(input["artifactID"])
        run = self.run(input["runName"])
        if node.of not in run.used_artifacts:
            run.used_artifacts.append(node.of)
        return {"artifact": node, "project": project_fields(self.store, run.entity, run.project)}
