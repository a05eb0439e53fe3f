"""W&B's run filters (MongoDB's language) and orders, as `wandb.Api().runs` sends them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.standin.state import Run

COLUMNS: Mapping[str, Callable[[Run], Any]] = {
    "name": lambda run: run.id,
    "display_name": lambda run: run.display_name,
    "displayName": lambda run: run.display_name,
    "state": lambda run: run.state,
    "sweep": lambda run: run.sweep_id,
    "group": lambda run: run.group,
    "job_type": lambda run: run.job_type,
    "jobType": lambda run: run.job_type,
    "tags": lambda run: run.tags,
    "created_at": lambda run: run.created_at,
    "createdAt": lambda run: run.created_at,
    "heartbeat_at": lambda run: run.heartbeat_at,
    "heartbeatAt": lambda run: run.heartbeat_at,
    "host": lambda run: run.host,
}
COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda found, given: equal(found, given),
    "$ne": lambda found, given: not equal(found, given),
    "$gt": lambda found, given: found is not None and found > given,
    "$gte": lambda found, given: found is not None and found >= given,
    "$lt": lambda found, given: found is not None and found < given,
    "$lte": lambda found, given: found is not None and found <= given,
    "$in": lambda found, given: any(equal(found, item) for item in given),
    "$nin": lambda found, given: not any(equal(found, item) for item in given),
    "$regex": lambda found, given: found is not None and re.search(given, str(found)) is not None,
    "$exists": lambda found, given: (found is not None) == given,
}


def equal(found: Any, given: Any) -> bool:
    return given in found if isinstance(found, list) and not isinstance(given, list) else found == given


def below(values: Mapping[str, Any], path: str) -> Any:
    """A value by its own name, or else by a dotted way into nested ones; wandb's `.value` wrapper is optional."""
    if path.endswith(".value") and path not in values:
        path = path.removesuffix(".value")
    if path in values:
        return values[path]
    head, _, rest = path.partition(".")
    inner = values.get(head)
    return below(inner, rest) if rest and isinstance(inner, Mapping) else None


def column(run: Run, path: str) -> Any:
    for prefix, values in (
        ("config.", run.config),
        ("summary_metrics.", run.summary),
        ("summaryMetrics.", run.summary),
    ):
        if path.startswith(prefix):
            return below(values, path.removeprefix(prefix))
    return COLUMNS[path](run) if path in COLUMNS else None


def matches(run: Run, wanted: Mapping[str, Any]) -> bool:
    for key, value in wanted.items():
        if key in ("$and", "$or", "$nor"):
            results = [matches(run, item) for item in value]
            good = all(results) if key == "$and" else any(results) is (key == "$or")
        elif key == "$not":
            good = not matches(run, value)
        elif isinstance(value, Mapping) and any(name.startswith("$") for name in value):
            good = all(holds(column(run, key), name, given) for name, given in value.items())
        else:
            good = equal(column(run, key), value)
        if not good:
            return False
    return True


def holds(found: Any, name: str, given: Any) -> bool:
    if name == "$not":
        return not all(holds(found, inner, item) for inner, item in given.items())
    return COMPARE[name](found, given)


def ordered(runs: list[Run], order: str | None) -> list[Run]:
    """Sorted by one key, `+` up and `-` down; runs without the value come last either way, as on the server."""
    order = order or "+created_at"
    path = order.lstrip("+-")
    with_value = [run for run in runs if isinstance(column(run, path), int | float | str)]
    without = [run for run in runs if not isinstance(column(run, path), int | float | str)]
    numbers = [run for run in with_value if not isinstance(column(run, path), str)]
    texts = [run for run in with_value if isinstance(column(run, path), str)]
    down = order.startswith("-")
    in_order = [*sorted(numbers, key=lambda run: column(run, path), reverse=down)]
    in_order += sorted(texts, key=lambda run: column(run, path), reverse=down)
    return in_order + without
