"""The GraphQL types of artifacts, their collections and their types."""

from __future__ import annotations

from typing import Any

from tests.support.standin.artifact_file_node import MANIFEST, ArtifactFileNode, ManifestNode
from tests.support.standin.graphql import Node, resolves
from tests.support.standin.nodes import UserNode, connection, project_fields
from tests.support.standin.state import Artifact, Project, Store, node_id


class ArtifactNode(Node):
    typename = "Artifact"

    def __init__(self, store: Store, artifact: Artifact) -> None:
        self.store, self.of = store, artifact

    def collection(self) -> CollectionNode:
        return CollectionNode(self.store, self.store.project(self.of.entity, self.of.project), self.of.name)

    def contents(self) -> list[str]:
        return [name for name in self.of.files if name != MANIFEST]

    @resolves
    def id(self) -> str:
        return self.of.id

    @resolves
    def state(self) -> str:
        return self.of.state

    @resolves
    def digest(self) -> str:
        return self.of.digest

    @resolves
    def digestAlgorithm(self) -> str:
        return "MANIFEST_MD5"

    @resolves
    def versionIndex(self) -> int | None:
        return self.of.version

    @resolves
    def description(self) -> str | None:
        return self.of.description

    @resolves
    def metadata(self) -> str | None:
        return self.of.metadata

    @resolves
    def ttlDurationSeconds(self) -> int:
        return -1 if self.of.ttl_s is None else self.of.ttl_s

    @resolves
    def ttlIsInherited(self) -> bool:
        return self.of.ttl_s is None

    @resolves
    def historyStep(self) -> int | None:
        return None

    @resolves
    def size(self) -> int:
        return sum(len(self.of.files[name]) for name in self.contents())

    @resolves
    def fileCount(self) -> int:
        return len(self.contents())

    @resolves
    def commitHash(self) -> str:
        return self.of.digest[:20]

    @resolves
    def createdAt(self) -> str:
        return self.of.created_at

    @resolves
    def updatedAt(self) -> str:
        return self.of.updated_at

    @resolves
    def artifactType(self) -> dict[str, Any]:
        return {"name": self.of.type, "id": node_id("ArtifactType", self.of.type)}

    @resolves
    def artifactSequence(self) -> Node:
        return self.collection()

    @resolves
    def tags(self) -> list[dict[str, Any]]:
        return [{"__typename": "Tag", "id": node_id("Tag", tag), "name": tag} for tag in self.of.tags]

    @resolves
    def aliases(self) -> list[dict[str, Any]]:
        return [
            {
                "__typename": "ArtifactAlias",
                "id": node_id("ArtifactAlias", self.of.id, alias),
                "alias": alias,
                "artifactCollection": self.collection(),
            }
            for alias in self.of.aliases
        ]

    @resolves
    def currentManifest(self) -> Node | None:
        return ManifestNode(self.store, self.of) if MANIFEST in self.of.files else None

    @resolves
    def files(
        self, names: list[str] | None = None, first: int | None = None, after: str | None = None
    ) -> dict[str, Any]:
        found = [name for name in self.contents() if not names or name in names]
        return connection([ArtifactFileNode(self.store, self.of, name) for name in found], first, after)

    @resolves
    def filesByManifestEntries(
        self,
        storageLayout: str,
        manifestVersion: str,
        entries: list[dict[str, Any]] | None = None,
        storageRegion: str | None = None,
    ) -> dict[str, Any]:
        names = [entry["name"] for entry in entries or []]
        return connection([ArtifactFileNode(self.store, self.of, name) for name in names])

    @resolves
    def createdBy(self) -> dict[str, Any] | None:
        run = self.store.runs.get(self.of.run_id or "")
        if run is None:
            return None
        project = project_fields(self.store, run.entity, run.project)
        return {"__typename": "Run", "id": run.storage_id, "name": run.id, "project": project}


class CollectionNode(Node):
    """All versions under one name."""

    typename = "ArtifactSequence"
    interfaces = ("ArtifactCollection",)

    def __init__(self, store: Store, project: Project, name: str) -> None:
        self.store, self.of, self.collection = store, project, name

    def versions(self) -> list[Artifact]:
        """The committed versions, oldest first."""
        key = (self.of.entity, self.of.name, self.collection)
        own = [a for a in self.store.artifacts.values() if (a.entity, a.project, a.name) == key]
        return sorted((a for a in own if a.version is not None), key=lambda a: a.version or 0)

    def version(self, alias: str) -> Artifact | None:
        wanted = [a for a in self.versions() if alias in a.aliases or alias in (f"v{a.version}", a.digest)]
        return wanted[-1] if wanted else None

    def membership(self, artifact: Artifact) -> dict[str, Any]:
        node = ArtifactNode(self.store, artifact)
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": node_id("ArtifactCollectionMembership", artifact.id),
            "versionIndex": artifact.version,
            "createdAt": artifact.created_at,
            "aliases": node.aliases(),
            "artifactCollection": self,
            "artifact": node,
            "files": node.files(),
        }

    @resolves
    def id(self) -> str:
        return node_id("ArtifactCollection", self.of.name, self.of.entity, self.collection)

    @resolves
    def name(self) -> str:
        return self.collection

    @resolves
    def digestAlgorithm(self) -> str:
        return "MANIFEST_MD5"

    @resolves
    def project(self) -> dict[str, Any]:
        return project_fields(self.store, self.of.entity, self.of.name)

    @resolves
    def latestArtifact(self) -> Node | None:
        versions = self.versions()
        return ArtifactNode(self.store, versions[-1]) if versions else None

    @resolves
    def artifacts(
        self,
        first: int | None = None,
        after: str | None = None,
        order: str | None = None,
        filters: str | None = None,
    ) -> dict[str, Any]:
        newest_first = [ArtifactNode(self.store, artifact) for artifact in reversed(self.versions())]
        page = connection(newest_first, first, after)
        for edge, artifact in zip(page["edges"], reversed(self.versions()), strict=False):
            edge["version"] = f"v{artifact.version}"
        return page

    @resolves
    def artifactMembership(self, aliasName: str) -> dict[str, Any] | None:
        found = self.version(aliasName)
        return self.membership(found) if found else None


class TypeNode(Node):
    typename = "ArtifactType"

    def __init__(self, store: Store, project: Project, name: str) -> None:
        self.store, self.of, self.type = store, project, name

    @resolves
    def id(self) -> str:
        return node_id("ArtifactType", self.type)

    @resolves
    def name(self) -> str:
        return self.type

    @resolves
    def createdAt(self) -> str:
        return self.of.created_at

    @resolves
    def user(self) -> Node:
        return UserNode(self.store)

    @resolves
    def artifactCollection(self, name: str) -> Node | None:
        node = CollectionNode(self.store, self.of, name)
        return node if node.versions() else None
