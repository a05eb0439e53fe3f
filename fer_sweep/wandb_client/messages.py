"""Messages to and from a W&B server about sweeps: records, and how they are parsed and written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from fer_sweep.config.sweep_yaml import parse_document
from fer_sweep.errors import InputError
from fer_sweep.store.trials import SweepState


@dataclass(frozen=True)
class SweepPath:
    """Where a sweep is on its server."""

    entity: str
    project: str
    id: str

    @classmethod
    def read(cls, text: str) -> "SweepPath":
        """Parse what ``str`` writes; only a project may have a slash in its name.

        Raises:
            ValueError: It is not ENTITY/PROJECT/ID.
        """
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


def parse_path(text: str, *, entity: str | None, project: str | None) -> tuple[str | None, str | None, str]:
    """Entity, project and id of a sweep from a path or an address.

    >>> parse_path("https://wandb.ai/lab/faces/sweeps/x1y2z3a4", entity=None, project=None)
    ('lab', 'faces', 'x1y2z3a4')
    >>> parse_path("https://wandb.example.org/w/lab/my%20faces/sweeps/x1y2z3a4/overview", entity=None, project=None)
    ('lab', 'my faces', 'x1y2z3a4')
    >>> parse_path("faces/x1y2z3a4", entity="me", project=None)
    ('me', 'faces', 'x1y2z3a4')

    Args:
        text: ENTITY/PROJECT/ID, PROJECT/ID, ID, or the address of the sweep's page.
        entity: The entity if the text has none.
        project: Likewise.

    Raises:
        InputError: The text is not one of these.
    """
    parts = text.split("/")
    if "://" in text:
        # A server may have a path prefix, and a sweep's page has subpages.
        whole = [unquote(part) for part in urlsplit(text).path.split("/") if part]
        place = whole.index("sweeps") if "sweeps" in whole else 0
        parts = [*whole[place - 2 : place], *whole[place + 1 : place + 2]] if place >= 2 else []
        if len(parts) != 3:
            parts = []
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InputError(
            f"{text!r} is not a sweep", hint="give ENTITY/PROJECT/ID, an id, or the address of a sweep's page"
        )
    given = [None] * (3 - len(parts)) + list(parts)
    return given[0] or entity, given[1] or project, parts[-1]


class Dumper(yaml.SafeDumper):
    """Quote text that begins with a digit: to some YAML readers "008" is a number."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quote = "'" if text[:1].isdigit() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quote)


Dumper.add_representer(str, _text)


def config_from(text: str, path: SweepPath) -> Mapping[str, Any]:
    """Parse a sweep file as the server returns it.

    Raises:
        InputError: It cannot be parsed.
    """
    # The reader of sweep files refuses YAML bombs and tags, and reads 1e-4 as a number.
    found = parse_document(text, source=f"sweep {path}").data
    if not isinstance(found, Mapping):
        raise InputError(f"sweep {path} has an unreadable configuration", hint="create it again from its file")
    return found


def state_of_word(word: str) -> SweepState:
    """The state for the server's name of it."""
    known = {"RUNNING": SweepState.RUNNING, "PENDING": SweepState.RUNNING, "PAUSED": SweepState.PAUSED}
    canceled = {"CANCELED": SweepState.CANCELLED, "CANCELLED": SweepState.CANCELLED}
    return {**known, **canceled}.get(word.upper(), SweepState.FINISHED)


def command_from(raw: Mapping[str, Any]) -> Command:
    """Parse a command from the answer to a heartbeat."""
    args = raw.get("args")
    plain = {name: item.get("value") if isinstance(item, Mapping) else item for name, item in (args or {}).items()}
    return Command(str(raw.get("type")), str(raw.get("run_id") or ""), plain)


def run_from(node: Mapping[str, Any]) -> ServerRun:
    """Parse a run from the answer to a query."""
    config = json.loads(node["config"] or "{}")
    plain = {
        name: item["value"] if isinstance(item, Mapping) and "value" in item else item
        for name, item in config.items()
        if name != "_wandb"
    }
    summary = json.loads(node["summaryMetrics"] or "{}")
    times = (_unix_time(node.get("createdAt")), _unix_time(node.get("heartbeatAt")))
    return ServerRun(node["name"], node["state"], plain, summary, *times, steps=node.get("historyLineCount") or 0)


def _unix_time(text: str | None) -> float | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
