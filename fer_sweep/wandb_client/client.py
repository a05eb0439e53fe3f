"""What a W&B server is asked about sweeps: every operation of its protocol that fersweep speaks is in this file.

The wire format is GraphQL over HTTPS, as the stock client of wandb 0.31 sends it. wandb's own Python names for these
operations are private and moved between 0.28 and 0.31, hence the few lines of our own; runs themselves are logged by
wandb (``tracking``).

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
"""W&B's names of states; it has one word, FINISHED, for a sweep that is stopped and one that is at its end."""


Args = ParamSpec("Args")
Answer = TypeVar("Answer")


def _understood(ask: Callable[Args, Answer]) -> Callable[Args, Answer]:
    """Make an error of ours of an answer whose shape nobody foresaw."""

    @functools.wraps(ask)
    def wrapped(*args: Args.args, **kwargs: Args.kwargs) -> Answer:
        try:
            return ask(*args, **kwargs)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
            raise ServerError(
                f"W&B's answer to {ask.__name__} cannot be read: {type(error).__name__}: {error}",
                hint="is it a W&B server, and of a version that wandb 0.31 speaks to? See WANDB_BASE_URL",
            ) from error

    return wrapped


class WandbServer:
    """A server, through one account; safe to share among threads."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._transport = Transport(account)

    def close(self) -> None:
        """Let the connection go."""
        self._transport.close()

    @_understood
    def default_entity(self, *, tries: int = TRIES) -> str:
        """The user or team that the key's owner works as.

        Raises:
            LoginError: The server does not know the key.
        """
        viewer = self._transport.ask("query Viewer { viewer { id username entity } }", {}, tries=tries)["viewer"]
        if not viewer:
            raise self._transport.wrong_key()
        return str(viewer.get("entity") or viewer["username"])

    @_understood
    def create_sweep(self, config: Mapping[str, Any], *, entity: str, project: str) -> tuple[SweepPath, Sequence[str]]:
        """Make a sweep; gives its path and what the server finds odd about the file.

        Raises:
            InputError: The server refuses the file, the entity or the project.
            ServerBusy: No answer; where it may have been made all the same, the hint says so.
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
        """Look a sweep up.

        Raises:
            NotFound: There is none at this path.
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
                hint="it may have been deleted, or be in another project: give ENTITY/PROJECT/ID",
            )
        sweep = found["sweep"]
        config = config_from(sweep["config"] or "", path)
        # The server may write names otherwise than whoever asked.
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
        """Announce an agent, which may run one trial at a time; gives its id."""
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
        """Say what an agent runs and hear what it is to do; asked for once, whatever comes of it.

        Raises:
            NotFound: The sweep has been deleted, or the agent is not known any more.
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
        """One run of a sweep's project, if the server has it."""
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
        """End a run that was proposed but cannot be trained, so that the search learns of it."""
        self._join(path, run_id, {"state": "failed", "reason": reason})
        self._stream(path, run_id, {"complete": True, "exitcode": 1})

    def hand_back(self, path: SweepPath, run_id: str) -> None:
        """Give back a run that was proposed and not begun: the server hands it out again, as a preempted one."""
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
