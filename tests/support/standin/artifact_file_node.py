"""The GraphQL types of an artifact's files and manifest."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.support.standin.graphql import Node, resolves
from tests.support.standin.state import Artifact, Store, node_id

MANIFEST = "wandb_manifest.json"


def artifact_file_url(store: Store, artifact: Artifact, name: str) -> str:
    return f"{store.url}/storage/artifacts/{quote(artifact.id, safe='')}/{quote(name)}"


class ArtifactFileNode(Node):
    typename = "File"

    def __init__(self, store: Store, artifact: Artifact, name: str) -> None:
        self.store, self.of, self.file = store, artifact, name

    @resolves
    def id(self) -> str:
        return node_id("ArtifactFile", self.of.id, self.file)

    @resolves
    def name(self) -> str:
        return self.file

    @resolves
    def displayName(self) -> str:
        return self.file

    @resolves
    def url(self) -> str:
        return artifact_file_url(self.store, self.of, self.file)

    @resolves
    def directUrl(self) -> str:
        return artifact_file_url(self.store, self.of, self.file)

    @resolves
    def uploadUrl(self) -> str:
        return artifact_file_url(self.store, self.of, self.file)

    @resolves
    def uploadHeaders(self) -> list[str]:
        return []

    @resolves
    def uploadMultipartUrls(self) -> None:
        return None

    @resolves
    def storagePath(self) -> str:
        return f"{self.of.id}/{self.file}"

    @resolves
    def artifact(self) -> dict[str, Any]:
        return {"id": self.of.id}

    @resolves
    def sizeBytes(self) -> int:
        return len(self.of.files.get(self.file, b""))

    @resolves
    def mimetype(self) -> str:
        return "application/octet-stream"

    @resolves
    def updatedAt(self) -> str:
        return self.of.updated_at

    @resolves
    def md5(self) -> str:
        return ""

    @resolves
    def digest(self) -> str:
        return ""


class ManifestNode(Node):
    typename = "ArtifactManifest"

    def __init__(self, store: Store, artifact: Artifact) -> None:
        self.store, self.of = store, artifact

    @resolves
    def id(self) -> str:
        return node_id("ArtifactManifest", self.of.id)

    @resolves
    def digest(self) -> str:
        return self.of.digest

    @resolves
    def file(self) -> Node:
        return ArtifactFileNode(self.store, self.of, MANIFEST)
