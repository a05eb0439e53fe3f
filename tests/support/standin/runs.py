"""What happens to runs: made or changed by UpsertBucket, filled by the file stream, ended; and what is told of them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from tests.support.standin import scheduler
from tests.support.standin.graphql import Fields
from tests.support.standin.graphql_document import GraphQLError
from tests.support.standin.places import project_fields
from tests.support.standin.state import TERMINAL, Run, Store, node_id, now, short_id

TEXTS = {
    "displayName": "display_name",
    "groupName": "group",
    "jobType": "job_type",
    "notes": "notes",
    "host": "host",
}
LIMITS = {"rate_limit": "800/s", "hard_limit": 2000}


def unwrapped(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration as plain values, and what wandb keeps for itself under `_wandb`."""
    plain = {
        name: entry["value"] if isinstance(entry, dict) and "value" in entry else entry
        for name, entry in config.items()
    }
    internal = plain.pop("_wandb", {})
    return plain, internal if isinstance(internal, dict) else {}


def upsert_run(store: Store, entity: str, given: dict[str, Any]) -> tuple[Run, bool]:
    """Make a run or change it; True when it is new.

    wandb-core's first message about a run tells its host and program; the later ones, which only change settings, do
    not. A first message with the id resumes the run (it comes after RunResumeStatus), one without the id overwrites
    what an earlier process logged under the same name.
    """
    starts = bool(given.get("host") or given.get("jobProgram"))
    run = store.run_by_storage_id(given["id"]) if given.get("id") else store.runs.get(given.get("name") or "")
    if run is None and given.get("id") and not given.get("name"):
        raise GraphQLError("run not found", status=404)
    inserted = run is None
    if run is None:
        project = given.get("modelName") or "uncategorized"
        store.project(entity, project)
        run = Run(given.get("name") or short_id(), entity, project)
        run.display_name = f"stand-in-{len(store.project_runs(entity, project)) + 1}"
        run.state = given.get("state") or "running"
        store.runs[run.id] = run
    elif starts or (run.state == "pending" and given.get("name")):
        restart(store, run, keep=bool(given.get("id")))
    for name, attribute in TEXTS.items():
        if given.get(name) is not None:
            setattr(run, attribute, given[name])
    if given.get("tags") is not None:
        run.tags = list(given["tags"])
    if given.get("config") is not None:
        run.config, run.wandb_config = unwrapped(json.loads(given["config"]))
    if given.get("summaryMetrics") is not None:
        run.summary = json.loads(given["summaryMetrics"])
    if given.get("sweep"):
        join_sweep(store, run, given["sweep"])
    run.heartbeat_at = now()
    return run, inserted


def restart(store: Store, run: Run, keep: bool) -> None:
    """A process starts an existing run again, and keeps what was logged or begins anew."""
    if not keep:
        run.history.clear()
        run.summary = {}
    run.stopped = run.stopped and run.state == "pending"  # a stop ends with the process that it was meant for
    run.state = "running"
    run.exit_code = None
    run.preempting = False
    sweep = store.sweeps.get(run.sweep_id or "")
    if sweep is not None and run.id in sweep.requeued:
        sweep.requeued.remove(run.id)


def join_sweep(store: Store, run: Run, sweep_id: str) -> None:
    """Attach a run that was made outside the sweep (by hand, or offline and synced later)."""
    sweep = store.sweeps.get(sweep_id)
    run.sweep_id = sweep_id
    if sweep is not None and run.id not in sweep.run_ids:
        sweep.run_ids.append(run.id)


def delete_run(store: Store, run: Run) -> None:
    del store.runs[run.id]
    for sweep in store.sweeps.values():
        sweep.run_ids = [run_id for run_id in sweep.run_ids if run_id != run.id]
        sweep.requeued = [run_id for run_id in sweep.requeued if run_id != run.id]


def file_stream(store: Store, run: Run, posted: dict[str, Any]) -> dict[str, Any]:
    """Take in one post of a run's file stream; the answer tells the client whether the run is to stop."""
    run.heartbeat_at = now()
    if run.state in TERMINAL and not posted.get("complete"):
        run.state = "running"  # a sign of life from a run that was given up, or from a process that lost it
        run.exit_code = None
    for name, chunk in posted.get("files", {}).items():
        offset, content = chunk.get("offset", 0), chunk.get("content", [])
        if name == "wandb-history.jsonl":  # the same lines sent twice change nothing
            run.history.extend({} for _ in range(offset - len(run.history)))
            run.history[offset : offset + len(content)] = [json.loads(line) for line in content]
        elif name == "wandb-summary.json" and content:
            run.summary = json.loads(content[-1])
    if posted.get("preempting"):
        run.preempting = True
        run.state = "preempting"
    if posted.get("complete"):
        scheduler.end_run(store, run, int(posted.get("exitcode") or 0))
    else:
        scheduler.progressed(store, run)
    return {"exitcode": run.exit_code, "limits": LIMITS, "stopped": run.stopped}


def run_fields(store: Store, run: Run) -> Fields:
    def config() -> str:
        wrapped = {name: {"value": value, "desc": None} for name, value in run.config.items()}
        return json.dumps({**wrapped, "_wandb": {"value": run.wandb_config, "desc": None}})

    return {
        "__typename": "Run",
        "id": run.storage_id,
        "name": run.id,
        "displayName": run.display_name,
        "description": None,
        "notes": run.notes,
        "tags": run.tags,
        "state": run.state,
        "stopped": run.stopped,
        "sweepName": run.sweep_id,
        "createdAt": run.created_at,
        "heartbeatAt": run.heartbeat_at,
        "project": lambda: project_fields(store, run.entity, run.project),
        "config": config,
        # A run without `t` was made ahead of time and has never started.
        "wandbConfig": lambda keys: json.dumps({k: run.wandb_config[k] for k in keys if k in run.wandb_config}),
        "summaryMetrics": lambda: json.dumps(run.summary),
        "historyLineCount": len(run.history),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": lambda: json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "eventsTail": "[]",
    }


def file_fields(store: Store, run: Run, name: str) -> Fields:
    url = f"{store.url}/storage/runs/{quote(run.id, safe='')}/{quote(name)}"
    return {"__typename": "File", "id": node_id("File", run.id, name), "name": name, "uploadUrl": url}
