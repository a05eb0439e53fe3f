"""The client for sweeps on a W&B server: every operation of its protocol that fersweep uses.

The wire format is GraphQL over HTTPS, as the stock client of wandb 0.31 sends it. wandb's own functions for these
operations are private and changed between 0.28 and 0.31, hence this client; wandb itself logs the runs (``tracking``).

Source: https://docs.wandb.ai/guides/sweeps and the queries of wandb 0.31.
"""

import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import yaml

from fer_sweep.errors import ServerError
from fer_sweep.store.trials import SweepState
from fer_sweep.wandb_client.account import Account
from fer_sweep.wandb_client.messages import (
    Command,
    Dumper,
    ServerRun,
    ServerSweep,
    SweepPath,
    command_from,
    config_from,
    run_from,
    state_of_word,
)
from fer_sweep.wandb_client.transport import TRIES, NotFound, Transport

_RUNS_A_PAGE = 100

_WORDS = {SweepState.RUNNING: "RUNNING", SweepState.PAUSED: "PAUSED", SweepState.CANCELLED: "CANCELED"}
"""W&B's names of states; stopped and finished sweeps are both FINISHED."""


Args = ParamSpec("Args")
Answer = TypeVar("Answer")


def _understood(ask: Callable[Args, Answer]) -> Callable[Args, Answer]:
    """Raise ``ServerError`` for an answer of an unexpected shape."""

    @functools.wraps(ask)
    def wrapped(*args: Args.args, **kwargs: Args.kwargs) -> Answer:
        try:
            return ask(*args, **kwargs)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
            raise ServerError(
                f"W&B's answer to {ask.__name__} cannot be read: {type(error).__name__}: {error}",
                hint="check WANDB_BASE_URL: it must be a W&B server that supports wandb 0.31",
            ) from error

    return wrapped


class WandbServer:
    """A server, used with one account; thread-safe."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._transport = Transport(account)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    @_understood
    def default_entity(self, *, tries: int = TRIES) -> str:
        """The default entity of the API key: a user or team.

        Raises:
            LoginError: The server does not know the key.
        """
        viewer = self._transport.ask("query Viewer { viewer { id username entity } }", {}, tries=tries)["viewer"]
        if not viewer:
            raise self._transport.wrong_key()
        return str(viewer.get("entity") or viewer["username"])

    @_understood
    def create_sweep(self, config: Mapping[str, Any], *, entity: str, project: str) -> tuple[SweepPath, Sequence[str]]:
        """Create a sweep; gives its path and the server's warnings about its file.

        Raises:
            InputError: The server refuses the file, the entity or the project.
            ServerBusy: No answer; if the sweep may have been created all the same, the hint says so.
        """
        answer = self._transport.ask(
            """mutation UpsertSweep($config: String, $description: String, $entityName: String, $projectName: String) {
                upsertSweep(input: {config: $config, description: $description, entityName: $entityName,
                                    projectName: $projectName}) {
                    sweep { name project { name entity { name } } }
                    configValidationWarnings
                }
            }""",
            {
                "config": yaml.dump(dict(config), Dumper=Dumper, sort_keys=False),
                "description": config.get("description"),
                "entityName": entity,
                "projectName": project,
            },
            repeatable=False,
        )["upsertSweep"]
        sweep = answer["sweep"]
        owner = sweep.get("project") or {}
        path = SweepPath((owner.get("entity") or {}).get("name") or entity, owner.get("name") or project, sweep["name"])
        return path, answer.get("configValidationWarnings") or ()

    @_understood
    def sweep(self, path: SweepPath) -> ServerSweep:
        """A sweep.

        Raises:
            NotFound: No sweep has this path.
        """
        found = self._transport.ask(
            """query Sweep($entity: String, $project: String, $sweep: String!) {
                project(name: $project, entityName: $entity) {
                    name entityName
                    sweep(sweepName: $sweep) { id name displayName state config }
                }
            }""",
            {"entity": path.entity, "project": path.project, "sweep": path.id},
        )["project"]
        if not found:
            raise NotFound(
                f"no project {path.entity}/{path.project} on {self.account.shown}",
                hint="name the sweep as ENTITY/PROJECT/ID, as in the address of its page",
            )
        if not found["sweep"]:
            raise NotFound(
                f"no sweep {path.id} in {path.entity}/{path.project} on {self.account.shown}",
                hint="it was deleted or is in another project: give ENTITY/PROJECT/ID",
            )
        sweep = found["sweep"]
        config = config_from(sweep["config"] or "", path)
        # The server's spelling of the names counts.
        canonical = SweepPath(found["entityName"] or path.entity, found["name"] or path.project, sweep["name"])
        return ServerSweep(sweep["id"], canonical, config, state_of_word(sweep["state"] or ""))

    def set_state(self, path: SweepPath, state: SweepState) -> None:
        """Pause, resume, stop or cancel a sweep, as the buttons of its page do."""
        self._transport.ask(
            """mutation UpsertSweep($id: ID, $state: String, $entityName: String, $projectName: String) {
                upsertSweep(input: {id: $id, state: $state, entityName: $entityName, projectName: $projectName}) {
                    sweep { name }
                }
            }""",
            {
                "id": self.sweep(path).key,
                "state": _WORDS.get(state, "FINISHED"),
                "entityName": path.entity,
                "projectName": path.project,
            },
        )

    @_understood
    def register_agent(self, path: SweepPath, host: str) -> str:
        """Register an agent, which may run one trial at a time; gives its id."""
        answer = self._transport.ask(
            """mutation CreateAgent($host: String!, $projectName: String, $entityName: String, $sweep: String!) {
                createAgent(input: {host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep}) {
                    agent { id }
                }
            }""",
            {"host": host, "entityName": path.entity, "projectName": path.project, "sweep": path.id},
            tries=1,
        )
        return str(answer["createAgent"]["agent"]["id"])

    @_understood
    def heartbeat(self, agent: str, running: Collection[str]) -> Sequence[Command]:
        """Send what an agent runs, and receive its commands; no retry.

        Raises:
            NotFound: The sweep or the agent was deleted.
        """
        answer = self._transport.ask(
            """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
                agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands }
            }""",
            {"id": agent, "metrics": "{}", "runState": json.dumps(dict.fromkeys(running, True))},
            tries=1,
        )
        commands = json.loads(answer["agentHeartbeat"]["commands"] or "[]")
        return [command_from(command) for command in commands]

    @_understood
    def runs(self, path: SweepPath, *, states: Sequence[str] = (), tries: int = TRIES) -> Sequence[ServerRun]:
        """Every run of a sweep, or those in some of the server's states, oldest first."""
        runs: list[ServerRun] = []
        cursor = None
        while True:
            found = self._transport.ask(
                """query Runs($project: String!, $entity: String!, $cursor: String, $perPage: Int, $order: String,
                              $filters: JSONString) {
                    project(name: $project, entityName: $entity) {
                        runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {
                            edges { node { name state config summaryMetrics createdAt heartbeatAt historyLineCount } }
                            pageInfo { endCursor hasNextPage }
                        }
                    }
                }""",
                {
                    "project": path.project,
                    "entity": path.entity,
                    "cursor": cursor,
                    "perPage": _RUNS_A_PAGE,
                    "order": "+created_at",
                    "filters": json.dumps({"sweep": path.id} | ({"state": {"$in": list(states)}} if states else {})),
                },
                tries=tries,
            )["project"]
            if not found:
                return runs
            runs += (run_from(edge["node"]) for edge in found["runs"]["edges"])
            page = found["runs"]["pageInfo"]
            if not page["hasNextPage"] or page["endCursor"] == cursor:
                return runs
            cursor = page["endCursor"]

    @_understood
    def run(self, path: SweepPath, run_id: str, *, tries: int = TRIES) -> ServerRun | None:
        """One run of a sweep's project; None if the server does not have it."""
        found = self._transport.ask(
            """query Run($project: String!, $entity: String!, $name: String!) {
                project(name: $project, entityName: $entity) {
                    run(name: $name) { name state config summaryMetrics createdAt heartbeatAt historyLineCount }
                }
            }""",
            {"project": path.project, "entity": path.entity, "name": run_id},
            tries=tries,
        )["project"]
        return run_from(found["run"]) if found and found["run"] else None

    def fail_run(self, path: SweepPath, run_id: str, reason: str) -> None:
        """Fail a run that was proposed but cannot be trained, so that the search takes it into account."""
        self._join(path, run_id, {"state": "failed", "reason": reason})
        self._stream(path, run_id, {"complete": True, "exitcode": 1})

    def hand_back(self, path: SweepPath, run_id: str) -> None:
        """Requeue a run that was proposed and not started: mark it preempted, so that the server hands it out again."""
        self._join(path, run_id, {})
        self._stream(path, run_id, {"preempting": True})
        self._stream(path, run_id, {"complete": True, "exitcode": 1})

    def _join(self, path: SweepPath, run_id: str, summary: Mapping[str, Any]) -> None:
        self._transport.ask(
            """mutation UpsertBucket($name: String, $project: String, $entity: String, $sweep: String,
                                     $summaryMetrics: JSONString) {
                upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, sweep: $sweep,
                                     summaryMetrics: $summaryMetrics}) { bucket { id } }
            }""",
            {
                "name": run_id,
                "project": path.project,
                "entity": path.entity,
                "sweep": path.id,
                "summaryMetrics": json.dumps(summary),
            },
            tries=1,
        )

    def _stream(self, path: SweepPath, run_id: str, body: Mapping[str, Any]) -> None:
        self._transport.post(f"/files/{path.entity}/{path.project}/{run_id}/file_stream", body, "file_stream")
