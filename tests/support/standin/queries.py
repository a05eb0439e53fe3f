"""The roots of the GraphQL queries: the viewer, projects with all that is in them, and the server itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.support.standin import filters as run_filters
from tests.support.standin.artifact_node import ArtifactNode, CollectionNode, TypeNode
from tests.support.standin.graphql import Node, resolves
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.nodes import EntityNode, UserNode, connection
from tests.support.standin.run_node import RunNode
from tests.support.standin.state import Project, Run, Store
from tests.support.standin.sweep_node import SweepNode
from tests.support.standin.views import ViewNode


class ProjectNode(Node):
    typename = "Project"

    def __init__(self, store: Store, project: Project) -> None:
        self.store, self.it = store, project

    def chosen(self, filters: str | None, order: str | None = None) -> list[Run]:
        wanted = json.loads(filters) if filters else {}
        runs = [
            run for run in self.store.project_runs(self.it.entity, self.it.name) if run_filters.matches(run, wanted)
        ]
        return run_filters.ordered(runs, order)

    @resolves
    def id(self) -> str:
        return self.it.storage_id

    @resolves
    def internalId(self) -> str:
        return str(self.it.internal_id)

    @resolves
    def name(self) -> str:
        return self.it.name

    @resolves
    def entityName(self) -> str:
        return self.it.entity

    @resolves
    def entity(self) -> Node:
        return EntityNode(self.store, self.it.entity)

    @resolves
    def description(self) -> str | None:
        return self.it.description

    @resolves
    def access(self) -> str:
        return "PRIVATE"

    @resolves
    def views(self) -> str:
        return "{}"

    @resolves
    def createdAt(self) -> str:
        return self.it.created_at

    @resolves
    def isBenchmark(self) -> bool:
        return False

    @resolves
    def user(self) -> Node:
        return UserNode(self.store)

    @resolves
    def readOnly(self) -> bool:
        return False

    @resolves
    def runCount(self, filters: str | None = None) -> int:
        return len(self.chosen(filters))

    @resolves
    def runs(
        self,
        filters: str | None = None,
        first: int | None = None,
        after: str | None = None,
        order: str | None = None,
    ) -> dict[str, Any]:
        return connection([RunNode(self.store, run) for run in self.chosen(filters, order)], first, after)

    @resolves
    def run(self, name: str) -> Node | None:
        run = self.store.runs.get(name)
        here = run is not None and (run.entity, run.project) == (self.it.entity, self.it.name)
        return RunNode(self.store, run) if run is not None and here else None

    @resolves
    def bucket(self, name: str, missingOk: bool = False) -> Node | None:
        return self.run(name)

    @resolves
    def sweep(self, sweepName: str) -> Node | None:
        sweep = self.store.sweeps.get(sweepName)
        here = sweep is not None and (sweep.entity, sweep.project) == (self.it.entity, self.it.name)
        return SweepNode(self.store, sweep) if sweep is not None and here else None

    def own_sweeps(self) -> list[SweepNode]:
        key = (self.it.entity, self.it.name)
        return [
            SweepNode(self.store, sweep) for sweep in self.store.sweeps.values() if (sweep.entity, sweep.project) == key
        ]

    @resolves
    def totalSweeps(self) -> int:
        return len(self.own_sweeps())

    @resolves
    def sweeps(self, first: int | None = None, after: str | None = None, filters: str | None = None) -> dict[str, Any]:
        if filters and json.loads(filters):
            raise GraphQLError("filters of sweeps are not in the stand-in")
        return connection(self.own_sweeps(), first, after)

    @resolves
    def allViews(
        self,
        viewType: str | None = None,
        viewName: str | None = None,
        userName: str | None = None,
        first: int | None = None,
        after: str | None = None,
    ) -> dict[str, Any]:
        views = [
            view
            for view in self.store.views.values()
            if (view.entity, view.project) == (self.it.entity, self.it.name)
            and (not viewType or view.type == viewType)
            and (not viewName or view.name == viewName)
        ]
        return connection([ViewNode(self.store, view) for view in views], first, after)

    @resolves
    def artifactType(self, name: str) -> Node | None:
        types = {
            a.type for a in self.store.artifacts.values() if (a.entity, a.project) == (self.it.entity, self.it.name)
        }
        return TypeNode(self.store, self.it, name) if name in types else None

    @resolves
    def artifactCollection(self, name: str) -> Node | None:
        node = CollectionNode(self.store, self.it, name)
        return node if node.versions() else None

    @resolves
    def artifact(self, name: str) -> Node | None:
        membership = self.artifactCollectionMembership(name)
        return membership["artifact"] if membership else None

    @resolves
    def artifactCollectionMembership(self, name: str) -> dict[str, Any] | None:
        collection, _, alias = name.partition(":")
        node = CollectionNode(self.store, self.it, collection)
        found = node.version(alias or "latest")
        if found is None:
            return None
        return node.membership(found)


class Query(Node):
    typename = "Query"

    def __init__(self, store: Store, features: Iterable[str]) -> None:
        self.store = store
        self.features = tuple(features)

    @resolves
    def viewer(self) -> Node:
        return UserNode(self.store)

    @resolves
    def serverInfo(self) -> dict[str, Any]:
        return {
            "features": [{"name": name, "isEnabled": True} for name in self.features],
            "cliVersionInfo": json.dumps({"max_cli_version": "0.31.0", "min_cli_version": "0.10.0"}),
            "latestLocalVersionInfo": None,
        }

    @resolves
    def entity(self, name: str) -> Node | None:
        return EntityNode(self.store, name) if name in self.store.entities else None

    @resolves
    def project(self, name: str | None = None, entityName: str | None = None) -> Node | None:
        project = self.store.projects.get((entityName or self.store.entity, name or "uncategorized"))
        return ProjectNode(self.store, project) if project else None

    @resolves
    def model(self, name: str | None = None, entityName: str | None = None) -> Node | None:
        return self.project(name, entityName)

    @resolves
    def models(
        self, entityName: str | None = None, first: int | None = None, after: str | None = None
    ) -> dict[str, Any]:
        entity = entityName or self.store.entity
        own = [ProjectNode(self.store, p) for p in self.store.projects.values() if p.entity == entity]
        return connection(own, first, after)

    @resolves
    def view(self, id: str) -> Node | None:
        view = self.store.views.get(id)
        return ViewNode(self.store, view) if view else None

    @resolves
    def artifact(self, id: str) -> Node | None:
        artifact = self.store.artifacts.get(id)
        return ArtifactNode(self.store, artifact) if artifact else None

    @resolves
    def clientIDMapping(self, clientID: str) -> dict[str, Any] | None:
        found = [a.id for a in self.store.artifacts.values() if a.client_id == clientID]
        return {"serverID": found[0]} if found else None
