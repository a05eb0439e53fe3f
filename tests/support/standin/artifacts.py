"""Artifacts: made, filled by uploads and committed, as wandb-core does for a model's weights or a table."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.support.standin.graphql import Fields
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.state import Artifact, Store, node_id

MANIFEST = "wandb_manifest.json"


def find(store: Store, artifact_id: str) -> Artifact:
    if artifact_id not in store.artifacts:
        raise GraphQLError("artifact not found", status=404)
    return store.artifacts[artifact_id]


def create(store: Store, entity: str, given: dict[str, Any]) -> Artifact:
    project = store.project(entity, given.get("projectName") or "uncategorized")
    artifact = Artifact(
        id=node_id("Artifact", store.number()),
        entity=entity,
        project=project.name,
        type=given["artifactTypeName"],
        name=(given.get("artifactCollectionNames") or [given.get("artifactCollectionName")])[0],
        digest=given["digest"],
        run_id=given.get("runName"),
        aliases=[alias["alias"] for alias in given.get("aliases") or []],
    )
    store.artifacts[artifact.id] = artifact
    return artifact


def commit(store: Store, artifact: Artifact) -> None:
    if artifact.version is None:
        artifact.version = len(versions(store, artifact))
        artifact.aliases.append("latest")


def versions(store: Store, artifact: Artifact) -> list[Artifact]:
    """The committed artifacts of the same collection, oldest first."""
    key = (artifact.entity, artifact.project, artifact.name)
    own = [other for other in store.artifacts.values() if (other.entity, other.project, other.name) == key]
    return [other for other in own if other.version is not None]


def artifact_fields(store: Store, artifact: Artifact) -> Fields:
    return {
        "__typename": "Artifact",
        "id": artifact.id,
        "state": "PENDING" if artifact.version is None else "COMMITTED",
        "digest": artifact.digest,
        "artifactSequence": lambda: collection_fields(store, artifact),
    }


def collection_fields(store: Store, artifact: Artifact) -> Fields:
    """All versions under one name."""
    committed = versions(store, artifact)
    latest = committed[-1] if committed else None
    return {
        "__typename": "ArtifactSequence",
        "id": node_id("ArtifactCollection", artifact.project, artifact.entity, artifact.name),
        "name": artifact.name,
        "latestArtifact": latest and {"id": latest.id, "versionIndex": latest.version},
    }


def file_fields(store: Store, artifact: Artifact, name: str) -> Fields:
    return {
        "__typename": "File",
        "id": node_id("ArtifactFile", artifact.id, name),
        "name": name,
        "displayName": name,
        "uploadUrl": f"{store.url}/storage/artifacts/{quote(artifact.id, safe='')}/{quote(name)}",
        "uploadHeaders": [],
        "uploadMultipartUrls": None,
        "storagePath": f"{artifact.id}/{name}",
        "artifact": {"id": artifact.id},
    }


def manifest_fields(store: Store, artifact: Artifact) -> Fields:
    return {"id": node_id("ArtifactManifest", artifact.id), "file": file_fields(store, artifact, MANIFEST)}
