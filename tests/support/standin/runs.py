"""What happens to runs: made or changed by UpsertBucket, and filled and ended by the file stream."""

import json
from typing import Any

from tests.support.standin import scheduler
from tests.support.standin.state import TERMINAL, Run, Store, now, short_id

ATTRIBUTES = {"displayName": "display_name", "groupName": "group", "jobType": "job_type"}
ATTRIBUTES |= {name: name for name in ("notes", "tags")}
"""By what UpsertBucket calls them."""


def upsert_run(store: Store, entity: str, given: dict[str, Any]) -> tuple[Run, bool]:
    """Make a run or change it; True when it is new.

    wandb-core's first message about a run tells its host and program; the later ones, which only change settings, do
    not. A first message with the id resumes the run (it comes after RunResumeStatus), one without the id overwrites
    what an earlier process logged under the same name.
    """
    starts = bool(given.get("host") or given.get("jobProgram"))
    if given.get("id"):
        run = next((run for run in store.runs.values() if run.storage_id == given["id"]), None)
    else:
        run = store.runs.get(given.get("name") or "")
    inserted = run is None
    if run is None:
        project = store.project(entity, given.get("modelName") or "uncategorized")
        run = Run(given.get("name") or short_id(), entity, project.name)
        run.display_name = f"stand-in-{len(store.project_runs(entity, project.name)) + 1}"
        run.state = given.get("state") or "running"
        store.runs[run.id] = run
    elif starts or (run.state == "pending" and given.get("name")):
        if not given.get("id"):
            run.history.clear()
            run.summary = {}
        run.stopped = run.stopped and run.state == "pending"  # a stop ends with the process that it was meant for
        run.state, run.exit_code, run.preempting = "running", None, False
    for name, attribute in ATTRIBUTES.items():
        if given.get(name) is not None:
            setattr(run, attribute, given[name])
    if given.get("config") is not None:
        run.config = {name: entry["value"] for name, entry in json.loads(given["config"]).items()}
        run.wandb_config = run.config.pop("_wandb", {})
    if given.get("summaryMetrics") is not None:
        run.summary = json.loads(given["summaryMetrics"])
    if given.get("sweep"):  # also of a run that was made outside it, such as an offline one that is synced
        run.sweep_id = given["sweep"]
        sweep = store.sweeps.get(given["sweep"])
        if sweep is not None and run.id not in sweep.run_ids:
            sweep.run_ids.append(run.id)
    run.heartbeat_at = now()
    return run, inserted


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
        run.exit_code = int(posted.get("exitcode") or 0)
        run.state = "finished" if run.exit_code == 0 else "preempted" if run.preempting else "failed"
        run.preempting = False
    scheduler.progressed(store, run)
    limits = {"rate_limit": "800/s", "hard_limit": 2000}
    return {"exitcode": run.exit_code, "limits": limits, "stopped": run.stopped}
