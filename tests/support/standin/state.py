"""What the stand-in server remembers: projects, sweeps, agents, runs, artifacts and views, all in memory."""

import base64
import contextlib
import datetime
import random
import string
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LIVE = ("running", "preempting")
TERMINAL = ("finished", "failed", "crashed", "killed", "preempted")


def now() -> str:
    """The time as W&B writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def node_id(*parts: object) -> str:
    """An opaque GraphQL id, built the way W&B builds them (base64 of `Run:v1:...`)."""
    return base64.b64encode(":".join(str(part) for part in parts).encode()).decode()


def short_id() -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=8))


@dataclass
class Project:
    entity: str
    name: str
    internal_id: int


@dataclass
class Agent:
    id: str
    reported: set[str] = field(default_factory=set)
    """The runs its last heartbeat called alive."""
    given: set[str] = field(default_factory=set)
    """Runs given with the last answer: they count as alive until the next heartbeat says otherwise."""
    commands: list[dict[str, Any]] = field(default_factory=list)
    """Every command it was ever sent, in order."""
    heartbeats: int = 0
    """So many were carried out, whether or not the answer has been sent."""


@dataclass
class Record:
    """Something in a project."""

    id: str
    entity: str
    project: str

    @property
    def storage_id(self) -> str:
        return node_id(type(self).__name__, "v1", self.id, self.project, self.entity)


@dataclass
class Sweep(Record):
    config: dict[str, Any]
    config_text: str
    """The YAML as it was sent; clients read the sweep's configuration back from it."""
    state: str = "RUNNING"
    controller: str | None = None
    scheduler: str | None = None
    description: str | None = None
    agents: list[Agent] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    exhausted: bool = False
    """The grid is used up or the cap is reached: no new run is proposed."""


@dataclass
class Run(Record):
    sweep_id: str | None = None
    state: str = "running"
    """running, finished, failed, crashed, killed, preempting, preempted or pending (proposed, not started yet)."""
    config: dict[str, Any] = field(default_factory=dict)
    """Plain values, without wandb's `{"value": ...}` wrapping."""
    wandb_config: dict[str, Any] = field(default_factory=dict)
    """What wandb keeps for itself under `_wandb`: plots, metric definitions, telemetry."""
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    display_name: str = ""
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    created_at: str = field(default_factory=now)
    heartbeat_at: str = field(default_factory=now)
    stopped: bool = False
    preempting: bool = False
    """`preempting` was sent since the run last started: a non-zero exit requeues it."""
    files: dict[str, bytes] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)
    """What the sweep proposed, `{name: {"value": v}}`; sent again when the run is resumed."""


@dataclass
class Artifact(Record):
    type: str
    name: str
    """The collection's name, without the version."""
    digest: str
    run_id: str | None
    version: int | None = None
    """The number in `name:v3`; none until the artifact is committed."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The content by the name in the artifact, its manifest included."""


@dataclass
class View(Record):
    """A report (`runs`), its draft (`runs/draft`) or a workspace (`project-view`)."""

    type: str = "runs"
    name: str = field(default_factory=short_id)
    display_name: str = ""
    description: str = ""
    spec: str = "{}"


@dataclass
class Request:
    """One request as it was answered."""

    operation: str
    """The GraphQL operation's name, or `file_stream`, or the path of anything else."""
    variables: dict[str, Any]
    """The GraphQL variables, or the body of a file stream post."""
    at: float
    """`time.monotonic()` when it arrived."""
    status: int = 0
    """The HTTP status answered; 0 where the connection was dropped."""


class Store:
    """Every record, guarded by `changed`: hold it to read or write, notify after a write."""

    def __init__(self, url: str, entity: str, teams: tuple[str, ...]) -> None:
        self.url = url
        self.entity = entity
        self.entities = (entity, *teams)
        self.changed = threading.Condition(threading.RLock())
        self.projects: dict[tuple[str, str], Project] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.views: dict[str, View] = {}
        self.exit_with_cancel = False
        """Whether cancelling a sweep sends `exit` together with `stop`, which makes the stock agent kill its run."""
        self._number = 1000

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Hold the records, and wake those who wait for a change."""
        with self.changed:
            yield
            self.changed.notify_all()

    def number(self) -> int:
        """A number that no other record has."""
        self._number += 1
        return self._number

    def project(self, entity: str, name: str) -> Project:
        """The project, made on first use as W&B makes it."""
        if (entity, name) not in self.projects:
            self.projects[entity, name] = Project(entity, name, self.number())
        return self.projects[entity, name]

    def sweep_runs(self, sweep: Sweep) -> Iterator[Run]:
        return (self.runs[run_id] for run_id in sweep.run_ids if run_id in self.runs)

    def project_runs(self, entity: str, project: str) -> list[Run]:
        return [run for run in self.runs.values() if (run.entity, run.project) == (entity, project)]
