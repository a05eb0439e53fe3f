"""Reports and workspaces: what `wandb-workspaces` saves and loads."""

from __future__ import annotations

from typing import Any

from tests.support.standin.graphql import Fields
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.places import project_fields, user_fields
from tests.support.standin.state import Store, View, node_id, now, short_id

ATTRIBUTES = {
    "type": "type",
    "name": "name",
    "displayName": "display_name",
    "description": "description",
    "spec": "spec",
}


def view_fields(store: Store, view: View) -> Fields:
    return {
        "__typename": "View",
        "id": view.id,
        **{field: getattr(view, attribute) for field, attribute in ATTRIBUTES.items()},
        "user": user_fields(store),
        "project": project_fields(store, view.entity, view.project),
        "createdAt": view.created_at,
        "updatedAt": view.updated_at,
    }


def upsert_view(store: Store, given: dict[str, Any]) -> tuple[View, bool]:
    """Save a view; True when it is new."""
    sent = {attribute: given[field] for field, attribute in ATTRIBUTES.items() if given.get(field) is not None}
    if given.get("id"):
        view = store.views.get(given["id"])
        if view is None:
            raise GraphQLError("view not found", status=404)
        for name, value in sent.items():
            setattr(view, name, value)
        view.updated_at = now()
        return view, False
    usual = {"type": "runs", "name": short_id(12), "display_name": "", "description": "", "spec": "{}"}
    entity, project = given.get("entityName") or store.entity, given.get("projectName") or "uncategorized"
    view = View(id=node_id("View", store.number()), entity=entity, project=project, **{**usual, **sent})
    store.views[view.id] = view
    return view, True
