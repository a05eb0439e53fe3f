"""What a sweep's server decides: which run an idle agent gets, which runs stop, when the sweep is finished.

Proposals and stops come from W&B's own `sweeps` package, so grid, random, bayes and hyperband are the real ones.
An agent with nothing to run waits while runs are live, since a preempted one may come back to it. That of a cancelled
sweep is told `stop` while it has runs and `exit` after, as the stock agent kills what runs when it is told to exit.
"""

import json
import math
import warnings
from typing import Any

import yaml

from tests.support.standin.graphql import GraphQLError, Refused
from tests.support.standin.state import LIVE, Agent, Run, Store, Sweep, short_id

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is written for an older pydantic
    import sweeps


def create_sweep(store: Store, entity: str, project: str, text: str) -> tuple[Sweep, list[str]]:
    """A sweep of the configuration in a YAML, and the warnings about it; one that proposes nothing is refused."""
    try:
        config = yaml.safe_load(text)
        violations = sweeps.schema_violations_from_proposed_config(config)
        if proposes(config):
            next_run(config, [])
    except Exception as error:
        raise GraphQLError(f"invalid sweep config: {error}") from None
    store.project(entity, project)
    sweep = Sweep(short_id(), entity, project, config, text)
    store.sweeps[sweep.id] = sweep
    return sweep, violations


def proposes(config: dict[str, Any]) -> bool:
    """Whether the server proposes runs; for a local controller or a scheduler it only shows them."""
    return (config.get("controller") or {}).get("type") != "local" and config.get("method") != "custom"


def next_run(config: dict[str, Any], runs: list[Any]) -> Any:
    """The package's proposal. Its Gaussian process warns about few points, which is no test's business."""
    if config["method"] != "bayes":
        return sweeps.next_run(config, runs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sweeps.next_run(config, runs)


def set_state(store: Store, sweep: Sweep, state: str) -> None:
    """What the buttons of the UI and `wandb sweep --pause` and the like do."""
    sweep.state = state
    sweep.exhausted = False  # asked again at the next heartbeat
    if state == "CANCELED":
        for run in store.sweep_runs(sweep):
            run.stopped = run.stopped or is_live(store, run)


def is_live(store: Store, run: Run) -> bool:
    """Whether the run still does something: one that is only proposed lives as long as its agent says so."""
    agents = store.sweeps[run.sweep_id].agents if run.sweep_id in store.sweeps else ()
    claimed = any(run.id in agent.reported | agent.given for agent in agents)
    return run.state in LIVE or (run.state == "pending" and claimed)


def is_requeued(run: Run) -> bool:
    return run.state == "preempted" and not run.stopped


def heartbeat(store: Store, agent_id: str, run_state: dict[str, Any]) -> list[dict[str, Any]]:
    """The commands for an agent that reports these runs as alive."""
    found = [(sweep, agent) for sweep in store.sweeps.values() for agent in sweep.agents if agent.id == agent_id]
    if not found:
        raise Refused(f"agent {agent_id} not found")
    ((sweep, agent),) = found
    agent.heartbeats += 1
    agent.reported = {run_id for run_id, alive in run_state.items() if alive}
    agent.given = set()
    review(store, sweep)
    commands = commands_for(store, sweep, agent)
    agent.commands += commands
    return commands


def commands_for(store: Store, sweep: Sweep, agent: Agent) -> list[dict[str, Any]]:
    if agent.reported:
        stopped = [run_id for run_id in sorted(agent.reported) if run_id in store.runs and store.runs[run_id].stopped]
        ends = store.exit_with_cancel and sweep.state == "CANCELED"
        return [{"type": "stop", "run_id": run_id} for run_id in stopped] + [{"type": "exit"}] * ends
    if sweep.state in ("FINISHED", "CANCELED"):
        return [{"type": "exit"}]
    if sweep.state != "RUNNING":
        return []
    if requeued := next(filter(is_requeued, store.sweep_runs(sweep)), None):
        requeued.state = "pending"
        return [assign(sweep, agent, requeued, "resume")]
    proposed = propose(store, sweep)
    if proposed is None:
        review(store, sweep)
        return [{"type": "exit"}] if sweep.state == "FINISHED" else []
    return [assign(sweep, agent, proposed, "run")]


def assign(sweep: Sweep, agent: Agent, run: Run, kind: str) -> dict[str, Any]:
    agent.given.add(run.id)
    return {"type": kind, "run_id": run.id, "args": run.args, "program": sweep.config.get("program")}


def propose(store: Store, sweep: Sweep) -> Run | None:
    """The next run, made at once in state pending; None when there is none or the server is not the one to propose."""
    if not proposes(sweep.config):
        return None
    is_capped = len(sweep.run_ids) >= sweep.config.get("run_cap", math.inf)
    proposal = None if is_capped else next_run(sweep.config, sweep_runs(store, sweep))
    sweep.exhausted = proposal is None
    if proposal is None:
        return None
    args = json.loads(json.dumps(proposal.config, default=lambda value: value.item()))  # numpy's numbers as plain ones
    run = Run(short_id(), sweep.entity, sweep.project, sweep.id, "pending", args=args)
    run.config = {name: entry["value"] for name, entry in args.items()}
    run.display_name = f"stand-in-sweep-{len(sweep.run_ids) + 1}"
    store.runs[run.id] = run
    sweep.run_ids.append(run.id)
    return run


def sweep_runs(store: Store, sweep: Sweep) -> list[Any]:
    """The sweep's runs as the `sweeps` package takes them."""
    found = []
    for run in store.sweep_runs(sweep):
        config = {name: {"value": value} for name, value in run.config.items()}
        logged = {"summary_metrics": run.summary, "history": run.history}
        found.append(sweeps.SweepRun(name=run.id, state=run.state, config=config, stopped=run.stopped, **logged))
    return found


def review(store: Store, sweep: Sweep) -> None:
    """Stop what hyperband stops, and finish a sweep that is at its target or has no run left, neither live nor new."""
    if sweep.config.get("early_terminate") and sweep.config.get("metric"):
        for stopped in sweeps.stop_runs(sweep.config, sweep_runs(store, sweep)):
            store.runs[stopped.name].stopped = True
    live = any(is_live(store, run) or is_requeued(run) for run in store.sweep_runs(sweep))
    if sweep.state == "RUNNING" and (target_reached(store, sweep) or (sweep.exhausted and not live)):
        sweep.state = "FINISHED"


def target_reached(store: Store, sweep: Sweep) -> bool:
    metric = sweep.config.get("metric") or {}
    if "target" not in metric:
        return False
    rows = [row for run in store.sweep_runs(sweep) for row in (*run.history, run.summary)]
    values = [row[metric["name"]] for row in rows if isinstance(row.get(metric["name"]), int | float)]
    is_max = metric.get("goal") == "maximize"
    return any(value >= metric["target"] if is_max else value <= metric["target"] for value in values)


def progressed(store: Store, run: Run) -> None:
    """A run has logged something or has ended: its sweep may stop others or be finished."""
    if sweep := store.sweeps.get(run.sweep_id or ""):
        review(store, sweep)
