"""What happens to artifacts: made, filled by uploads, committed, aliased."""

from __future__ import annotations

from typing import Any

from tests.support.standin.state import Artifact, Store, node_id, now


def versions(store: Store, artifact: Artifact) -> list[Artifact]:
    """The committed artifacts of the same collection."""
    key = (artifact.entity, artifact.project, artifact.name)
    own = [other for other in store.artifacts.values() if (other.entity, other.project, other.name) == key]
    return [other for other in own if other.state == "COMMITTED"]


def create(store: Store, entity: str, given: dict[str, Any]) -> Artifact:
    """A new artifact, or the latest version where its content is the same: nothing is stored twice."""
    project = store.project(entity, given.get("projectName") or "uncategorized")
    artifact = Artifact(
        id=node_id("Artifact", store.number()),
        entity=entity,
        project=project.name,
        type=given["artifactTypeName"],
        name=(given.get("artifactCollectionNames") or [given.get("artifactCollectionName")])[0],
        digest=given["digest"],
        client_id=given.get("clientID") or "",
        sequence_id=given.get("sequenceClientID") or "",
        run_id=given.get("runName"),
        aliases=[alias["alias"] for alias in given.get("aliases") or []],
        tags=[tag["tagName"] for tag in given.get("tags") or []],
        metadata=given.get("metadata"),
        description=given.get("description"),
        ttl_s=given.get("ttlDurationSeconds"),
    )
    same = [other for other in versions(store, artifact) if other.digest == artifact.digest]
    if same and given.get("enableDigestDeduplication"):
        add_aliases(store, same[-1], artifact.aliases)
        chosen = same[-1]
    else:
        store.artifacts[artifact.id] = chosen = artifact
    run = store.runs.get(given.get("runName") or "")
    if run is not None and chosen not in run.artifacts:
        run.artifacts.append(chosen)
    return chosen


def commit(store: Store, artifact: Artifact) -> None:
    if artifact.state == "COMMITTED":
        return
    artifact.version = len(versions(store, artifact))
    artifact.state = "COMMITTED"
    artifact.updated_at = now()
    add_aliases(store, artifact, [*artifact.aliases, "latest"])


def add_aliases(store: Store, artifact: Artifact, aliases: list[str]) -> None:
    """An alias names one version of a collection: giving it takes it from another."""
    for other in versions(store, artifact):
        if other is not artifact:
            other.aliases = [alias for alias in other.aliases if alias not in aliases]
    artifact.aliases = list(dict.fromkeys([*artifact.aliases, *aliases]))


def update(store: Store, artifact: Artifact, given: dict[str, Any]) -> None:
    for name in ("metadata", "description"):
        if given.get(name) is not None:
            setattr(artifact, name, given[name])
    if given.get("aliases") is not None:
        wanted = [alias["alias"] for alias in given["aliases"]]
        artifact.aliases = []
        add_aliases(store, artifact, wanted)
    artifact.updated_at = now()
