"""The client for sweeps on a W&B server: every operation of its protocol that fersweep uses.

The wire format is GraphQL over HTTPS, as the stock client of wandb 0.31 sends it. wandb's own functions for these
operations are private and changed between 0.28 and 0.31, hence this client; wandb itself logs the runs (``tracking``).

Source: https://docs.wandb.ai/guides/sweeps and the queries of wandb 0.31.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from fer_sweep.config.sweep_yaml import parse_document
from fer_sweep.errors import InputError, ServerError
from fer_sweep.records import SweepState
from fer_sweep.wandb_client.messages import Command, Dumper, ServerRun, ServerSweep, SweepPath, run_from, values
from fer_sweep.wandb_client.transport import TRIES, NotFound, Transport

_WORDS = {SweepState.RUNNING: "RUNNING", SweepState.PAUSED: "PAUSED", SweepState.CANCELLED: "CANCELED"}
"""W&B's names of states; stopped and finished sweeps are both FINISHED."""
_STATES = {word: state for state, word in _WORDS.items()}
_STATES |= {"PENDING": SweepState.RUNNING, "CANCELLED": SweepState.CANCELLED}


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Raise ``ServerError`` for an answer of an unexpected shape."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise ServerError(
            f"W&B's answer to {what} cannot be read: {type(error).__name__}: {error}",
            hint="check WANDB_BASE_URL: it must be a W&B server that supports wandb 0.31",
        ) from error


class WandbServer(Transport):
    """A server, used with one account; thread-safe."""

    @_reading("default_entity")
    def default_entity(self, *, tries: int = TRIES) -> str:
        """The default entity of the API key: a user or team."""
        viewer = self.ask("query Viewer { viewer { id username entity } }", {}, tries=tries)["viewer"]
        if not viewer:
            raise self.wrong_key()
        return str(viewer.get("entity") or viewer["username"])

    @_reading("create_sweep")
    def create_sweep(self, config: Mapping[str, Any], *, entity: str, project: str) -> tuple[SweepPath, Sequence[str]]:
        """Create a sweep; gives its path and the server's warnings about its file."""
        answer = self.ask(
            """mutation UpsertSweep($config: String, $description: String, $entity: String, $project: String) {
                upsertSweep(input: {config: $config, description: $description, entityName: $entity,
                                    projectName: $project}) {
                    sweep { name project { name entity { name } } }
                    configValidationWarnings
                }
            }""",
            {
                "config": yaml.dump(dict(config), Dumper=Dumper, sort_keys=False),
                "description": config.get("description"),
                "entity": entity,
                "project": project,
            },
            repeatable=False,
        )["upsertSweep"]
        sweep = answer["sweep"]
        owner = sweep.get("project") or {}
        path = SweepPath((owner.get("entity") or {}).get("name") or entity, owner.get("name") or project, sweep["name"])
        return path, answer.get("configValidationWarnings") or ()

    @_reading("sweep")
    def sweep(self, path: SweepPath, *, tries: int = TRIES) -> ServerSweep:
        """A sweep; raises ``NotFound`` if none has this path."""
        found = self.ask(
            """query Sweep($entity: String, $project: String, $sweep: String!) {
                project(name: $project, entityName: $entity) {
                    name entityName
                    sweep(sweepName: $sweep) { id name state config }
                }
            }""",
            {**_within(path), "sweep": path.id},
            tries=tries,
        )["project"]
        place = f"{path.entity}/{path.project}"
        if not found:
            hint = "name the sweep as ENTITY/PROJECT/ID, as in the address of its page"
            raise NotFound(f"no project {place} on {self.account.shown}", hint=hint)
        if not (sweep := found["sweep"]):
            hint = "it was deleted or is in another project: give ENTITY/PROJECT/ID"
            raise NotFound(f"no sweep {path.id} in {place} on {self.account.shown}", hint=hint)
        # The reader of sweep files refuses YAML bombs and tags, and reads 1e-4 as a number.
        config = parse_document(sweep["config"] or "", source=f"sweep {path}").data
        if not isinstance(config, Mapping):
            hint = "create it again from its file"
            raise InputError(f"sweep {path} has an unreadable configuration", hint=hint)
        # The server's spelling of the names counts.
        canonical = SweepPath(found["entityName"] or path.entity, found["name"] or path.project, sweep["name"])
        state = _STATES.get((sweep["state"] or "").upper(), SweepState.FINISHED)
        return ServerSweep(sweep["id"], canonical, config, state)

    def set_state(self, path: SweepPath, state: SweepState) -> None:
        """Pause, resume, stop or cancel a sweep, as the buttons of its page do."""
        self.ask(
            """mutation UpsertSweep($id: ID, $state: String, $entity: String, $project: String) {
                upsertSweep(input: {id: $id, state: $state, entityName: $entity, projectName: $project}) {
                    sweep { name }
                }
            }""",
            {**_within(path), "id": self.sweep(path).key, "state": _WORDS.get(state, "FINISHED")},
        )

    @_reading("register_agent")
    def register_agent(self, path: SweepPath, host: str) -> str:
        """Register an agent, which may run one trial at a time; gives its id."""
        answer = self.ask(
            """mutation CreateAgent($host: String!, $project: String, $entity: String, $sweep: String!) {
                createAgent(input: {host: $host, projectName: $project, entityName: $entity, sweep: $sweep}) {
                    agent { id }
                }
            }""",
            {**_within(path), "host": host, "sweep": path.id},
            tries=1,
        )
        return str(answer["createAgent"]["agent"]["id"])

    @_reading("heartbeat")
    def heartbeat(self, agent: str, running: str | None) -> Sequence[Command]:
        """Send the run that an agent trains, and receive its commands; ``NotFound`` if it or the sweep was deleted."""
        answer = self.ask(
            """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
                agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands }
            }""",
            {"id": agent, "metrics": "{}", "runState": json.dumps({running: True} if running else {})},
            tries=1,
        )
        return [
            Command(str(raw.get("type")), str(raw.get("run_id") or ""), values(raw.get("args") or {}))
            for raw in json.loads(answer["agentHeartbeat"]["commands"] or "[]")
        ]

    @_reading("runs")
    def runs(
        self, path: SweepPath, *, ids: Sequence[str] = (), states: Sequence[str] = (), tries: int = TRIES
    ) -> Sequence[ServerRun]:
        """Every run of a sweep, or those with some ids or in some of the server's states, oldest first."""
        chosen = {"name": ids, "state": states}
        filters = {"sweep": path.id} | {key: {"$in": list(some)} for key, some in chosen.items() if some}
        runs: list[ServerRun] = []
        cursor = None
        while True:
            found = self.ask(
                """query Runs($project: String!, $entity: String!, $cursor: String, $filters: JSONString) {
                    project(name: $project, entityName: $entity) {
                        runs(filters: $filters, after: $cursor, first: 100, order: "+created_at") {
                            edges { node { name state config summaryMetrics createdAt heartbeatAt historyLineCount } }
                            pageInfo { endCursor hasNextPage }
                        }
                    }
                }""",
                {**_within(path), "cursor": cursor, "filters": json.dumps(filters)},
                tries=tries,
            )["project"]
            if not found:
                return runs
            runs += (run_from(edge["node"]) for edge in found["runs"]["edges"])
            page = found["runs"]["pageInfo"]
            if not page["hasNextPage"] or page["endCursor"] == cursor:
                return runs
            cursor = page["endCursor"]

    def fail_run(self, path: SweepPath, run_id: str, reason: str) -> None:
        """Fail a run that was proposed but cannot be trained, so that the search takes it into account."""
        self._write_run(path, run_id, {"state": "failed", "reason": reason}, {"complete": True, "exitcode": 1})

    def requeue(self, path: SweepPath, run_id: str) -> None:
        """Requeue a run that was proposed and not started: mark it preempted, so that the server hands it out again."""
        self._write_run(path, run_id, {}, {"preempting": True}, {"complete": True, "exitcode": 1})

    def _write_run(self, path: SweepPath, run_id: str, summary: Mapping[str, Any], *posts: Mapping[str, Any]) -> None:
        self.ask(
            """mutation UpsertBucket($name: String, $project: String, $entity: String, $sweep: String,
                                     $summaryMetrics: JSONString) {
                upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, sweep: $sweep,
                                     summaryMetrics: $summaryMetrics}) { bucket { id } }
            }""",
            {**_within(path), "name": run_id, "sweep": path.id, "summaryMetrics": json.dumps(summary)},
            tries=1,
        )
        for post in posts:
            self.post(f"/files/{path.entity}/{path.project}/{run_id}/file_stream", post, "file_stream")


def _within(path: SweepPath) -> dict[str, str]:
    return {"entity": path.entity, "project": path.project}
