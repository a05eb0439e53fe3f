"""The run filters (MongoDB's language) and orders that fersweep and the stock clients send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.state import Run

COLUMNS: Mapping[str, Callable[[Run], Any]] = {
    "name": lambda run: run.id,
    "state": lambda run: run.state,
    "sweep": lambda run: run.sweep_id,
    "created_at": lambda run: run.created_at,
    "createdAt": lambda run: run.created_at,
}


def column(run: Run, path: str) -> Any:
    if path not in COLUMNS:
        raise GraphQLError(f"a filter or an order by {path} is not in the stand-in")
    return COLUMNS[path](run)


def matches(run: Run, wanted: Mapping[str, Any]) -> bool:
    return all(holds(run, key, value) for key, value in wanted.items())


def holds(run: Run, key: str, value: Any) -> bool:
    if key in ("$and", "$or"):
        return (all if key == "$and" else any)(matches(run, item) for item in value)
    if isinstance(value, Mapping):
        if set(value) != {"$in"}:
            raise GraphQLError(f"a filter by {', '.join(value)} is not in the stand-in")
        return column(run, key) in value["$in"]
    return bool(column(run, key) == value)


def ordered(runs: list[Run], order: str | None) -> list[Run]:
    """Sorted by one key, `+` up and `-` down."""
    order = order or "+created_at"
    return sorted(runs, key=lambda run: column(run, order.lstrip("+-")), reverse=order.startswith("-"))
