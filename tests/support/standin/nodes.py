"""The GraphQL types of users and entities, and what every type needs: pages, and values for plain JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tests.support.standin.graphql import Node, resolves
from tests.support.standin.state import Store, node_id


def connection(items: Sequence[Any], first: int | None = None, after: str | None = None) -> dict[str, Any]:
    """A page of items as a GraphQL connection; a cursor is the index of its item."""
    start = int(after) + 1 if after else 0
    stop = len(items) if first is None else min(len(items), start + first)
    edges = [{"node": items[index], "cursor": str(index)} for index in range(start, stop)]
    info = {
        "__typename": "PageInfo",
        "hasNextPage": stop < len(items),
        "hasPreviousPage": start > 0,
        "endCursor": edges[-1]["cursor"] if edges else None,
        "startCursor": edges[0]["cursor"] if edges else None,
    }
    return {"edges": edges, "pageInfo": info, "totalCount": len(items)}


def strict(value: Any) -> Any:
    """Values for plain JSON, where NaN and infinities travel as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, list) else value


class UserNode(Node):
    typename = "User"

    def __init__(self, store: Store) -> None:
        self.store = store

    @resolves
    def id(self) -> str:
        return node_id("User", 1)

    @resolves
    def entity(self) -> str:
        return self.store.entity

    @resolves
    def username(self) -> str:
        return self.store.entity

    @resolves
    def name(self) -> str:
        return self.store.entity.capitalize()

    @resolves
    def email(self) -> str:
        return f"{self.store.entity}@example.com"

    @resolves
    def photoUrl(self) -> None:
        return None

    @resolves
    def admin(self) -> bool:
        return False

    @resolves
    def flags(self) -> str:
        return "{}"

    @resolves
    def deletedAt(self) -> None:
        return None

    @resolves
    def apiKeys(self) -> dict[str, Any]:
        return connection([])

    @resolves
    def teams(self) -> dict[str, Any]:
        return connection([{"name": name} for name in self.store.entities])


class EntityNode(Node):
    typename = "Entity"

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.entity = name

    @resolves
    def id(self) -> str:
        return node_id("Entity", self.entity)

    @resolves
    def name(self) -> str:
        return self.entity

    @resolves
    def available(self) -> bool:
        return False

    @resolves
    def isTeam(self) -> bool:
        return self.entity != self.store.entity

    @resolves
    def organization(self) -> dict[str, Any]:
        return {"coreWeaveOrganizationId": None, "name": "stand-in", "orgEntity": {"name": "stand-in"}}

    @resolves
    def xxhashDigestsEnabled(self) -> bool:
        return False


def project_fields(store: Store, entity: str, name: str) -> dict[str, Any]:
    """A project as its sweeps, runs and views show it."""
    project = store.project(entity, name)
    return {
        "id": project.storage_id,
        "internalId": str(project.internal_id),
        "name": project.name,
        "entityName": project.entity,
        "entity": EntityNode(store, project.entity),
    }
