"""The GraphQL objects of users, entities and projects, and pages of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.standin.graphql import Fields
from tests.support.standin.state import Store, node_id


def connection(items: Sequence[Any], first: int | None = None, after: str | None = None) -> Fields:
    """A page of items; a cursor is the index of its item."""
    start = int(after) + 1 if after else 0
    stop = len(items) if first is None else min(len(items), start + first)
    edges = [{"node": items[index], "cursor": str(index)} for index in range(start, stop)]
    info = {
        "__typename": "PageInfo",
        "hasNextPage": stop < len(items),
        "endCursor": edges[-1]["cursor"] if edges else None,
    }
    return {"edges": edges, "pageInfo": info, "totalCount": len(items)}


def user_fields(store: Store) -> Fields:
    return {
        "__typename": "User",
        "id": node_id("User", 1),
        "entity": store.entity,
        "username": store.entity,
        "name": store.entity.capitalize(),
        "email": f"{store.entity}@example.com",
        "photoUrl": None,
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
        "organization": {"coreWeaveOrganizationId": None, "name": "stand-in", "orgEntity": {"name": "stand-in"}},
    }


def project_fields(store: Store, entity: str, name: str) -> Fields:
    """A project as its sweeps, runs and views show it; made on first use as W&B makes it."""
    project = store.project(entity, name)
    return {
        "__typename": "Project",
        "id": project.storage_id,
        "internalId": str(project.internal_id),
        "name": project.name,
        "entityName": project.entity,
        "entity": entity_fields(project.entity),
        "createdAt": project.created_at,
        "isBenchmark": False,
    }
