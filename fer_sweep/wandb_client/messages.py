"""Messages to and from a W&B server about sweeps: records, and how they are parsed and written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from fer_sweep.records import SweepState


@dataclass(frozen=True)
class SweepPath:
    """Where a sweep is on its server."""

    entity: str
    project: str
    id: str

    @classmethod
    def read(cls, text: str) -> "SweepPath":
        """Parse what ``str`` writes, or raise ``ValueError``; only a project may have a slash in its name."""
        entity, _, rest = text.partition("/")
        project, _, sweep = rest.rpartition("/")
        if not (entity and project and sweep):
            raise ValueError(f"{text!r} is not ENTITY/PROJECT/ID")
        return cls(entity, project, sweep)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.id}"


@dataclass(frozen=True)
class ServerSweep:
    """A sweep on the server."""

    key: str
    """The server's internal id, which a change of state needs."""
    path: SweepPath
    """In the server's spelling."""
    config: Mapping[str, Any]
    """The sweep file."""
    state: SweepState


@dataclass(frozen=True)
class ServerRun:
    """A run on the server."""

    id: str
    state: str
    """running, finished, failed, crashed, killed, preempting, preempted, pending."""
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    created_at: float | None
    """Unix time, seconds."""
    heartbeat_at: float | None
    steps: int
    """Lines of its history."""


@dataclass(frozen=True)
class Command:
    """A command of the server to an agent."""

    type: str
    """run, resume, stop or exit."""
    run_id: str = ""
    args: Mapping[str, Any] | None = None
    """The run's parameters, nested where the sweep file nests them."""


class Dumper(yaml.SafeDumper):
    """Quotes text that begins with a digit: to some YAML readers "008" is a number."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        """The node for a text."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="'" if text[:1].isdigit() else None)


Dumper.add_representer(str, Dumper.represent_str)


def run_from(node: Mapping[str, Any]) -> ServerRun:
    """Parse a run from the answer to a query."""
    return ServerRun(
        node["name"],
        node["state"],
        config=values(json.loads(node["config"] or "{}")),
        summary=json.loads(node["summaryMetrics"] or "{}"),
        created_at=_unix_time(node.get("createdAt")),
        heartbeat_at=_unix_time(node.get("heartbeatAt")),
        steps=node.get("historyLineCount") or 0,
    )


def values(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``{"name": {"value": ...}}`` gives by name, without wandb's own entry."""
    return {
        name: entry["value"] if isinstance(entry, Mapping) and "value" in entry else entry
        for name, entry in entries.items()
        if name != "_wandb"
    }


def _unix_time(text: str | None) -> float | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
