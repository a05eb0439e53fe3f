"""Reports and workspaces: what `wandb-workspaces` saves and loads."""

from __future__ import annotations

from typing import Any

from tests.support.standin.graphql import Node, resolves
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.nodes import UserNode, project_fields
from tests.support.standin.state import Store, View, node_id, now, short_id


class ViewNode(Node):
    typename = "View"

    def __init__(self, store: Store, view: View) -> None:
        self.store, self.view = store, view

    @resolves
    def id(self) -> str:
        return self.view.id

    @resolves
    def type(self) -> str:
        return self.view.type

    @resolves
    def name(self) -> str:
        return self.view.name

    @resolves
    def displayName(self) -> str:
        return self.view.display_name

    @resolves
    def description(self) -> str:
        return self.view.description

    @resolves
    def spec(self) -> str:
        return self.view.spec

    @resolves
    def previewUrl(self) -> None:
        return None

    @resolves
    def user(self) -> Node:
        return UserNode(self.store)

    @resolves
    def project(self) -> dict[str, Any]:
        return project_fields(self.store, self.view.entity, self.view.project)

    @resolves
    def createdAt(self) -> str:
        return self.view.created_at

    @resolves
    def updatedAt(self) -> str:
        return self.view.updated_at

    @resolves
    def accessTokens(self) -> list[Any]:
        return []


def upsert_view(store: Store, given: dict[str, Any]) -> tuple[View, bool]:
    """Save a view; True when it is new."""
    if given.get("id"):
        view = store.views.get(given["id"])
        if view is None:
            raise GraphQLError("view not found", status=404)
        for name, value in (
            ("type", given.get("type")),
            ("name", given.get("name")),
            ("display_name", given.get("displayName")),
            ("description", given.get("description")),
            ("spec", given.get("spec")),
        ):
            if value is not None:
                setattr(view, name, value)
        view.updated_at = now()
        return view, False
    view = View(
        id=node_id("View", store.number()),
        entity=given.get("entityName") or store.entity,
        project=given.get("projectName") or "uncategorized",
        type=given.get("type") or "runs",
        name=given.get("name") or short_id(12),
        display_name=given.get("displayName") or "",
        description=given.get("description") or "",
        spec=given.get("spec") or "{}",
    )
    store.project(view.entity, view.project)
    store.views[view.id] = view
    return view, True
