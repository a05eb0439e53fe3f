"""The GraphQL types of a sweep and its agents."""

from __future__ import annotations

from typing import Any

from tests.support.standin.filters import below
from tests.support.standin.graphql import Node, resolves
from tests.support.standin.nodes import connection, project_fields
from tests.support.standin.run_node import RunNode
from tests.support.standin.state import Agent, Store, Sweep


class AgentNode(Node):
    typename = "Agent"

    def __init__(self, store: Store, agent: Agent) -> None:
        self.store, self.agent = store, agent

    @resolves
    def id(self) -> str:
        return self.agent.id

    @resolves
    def name(self) -> str:
        return self.agent.id

    @resolves
    def host(self) -> str:
        return self.agent.host

    @resolves
    def state(self) -> str:
        return self.agent.state

    @resolves
    def totalRuns(self) -> int:
        return len(self.agent.run_ids)

    @resolves
    def createdAt(self) -> str:
        return self.agent.created_at

    @resolves
    def heartbeatAt(self) -> str:
        return self.agent.heartbeat_at

    @resolves
    def runs(
        self,
        first: int | None = None,
        after: str | None = None,
        before: str | None = None,
        last: int | None = None,
        order: str | None = None,
    ) -> dict[str, Any]:
        runs = [self.store.runs[run_id] for run_id in dict.fromkeys(self.agent.run_ids) if run_id in self.store.runs]
        return connection([RunNode(self.store, run) for run in runs], first, after)


class SweepNode(Node):
    typename = "Sweep"

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self.store, self.sweep = store, sweep

    @resolves
    def id(self) -> str:
        return self.sweep.storage_id

    @resolves
    def name(self) -> str:
        return self.sweep.id

    @resolves
    def displayName(self) -> str | None:
        return self.sweep.display_name or self.sweep.config.get("name")

    @resolves
    def method(self) -> str:
        return str(self.sweep.config.get("method"))

    @resolves
    def state(self) -> str:
        return self.sweep.state

    @resolves
    def description(self) -> str | None:
        return self.sweep.description

    @resolves
    def config(self) -> str:
        return self.sweep.config_text

    @resolves
    def createdAt(self) -> str:
        return self.sweep.created_at

    @resolves
    def updatedAt(self) -> str:
        return self.sweep.updated_at

    @resolves
    def heartbeatAt(self) -> str:
        return max((agent.heartbeat_at for agent in self.sweep.agents), default=self.sweep.updated_at)

    @resolves
    def earlyStopJobRunning(self) -> bool:
        return False

    @resolves
    def controller(self) -> str | None:
        return self.sweep.controller

    @resolves
    def controllerRunName(self) -> None:
        return None

    @resolves
    def scheduler(self) -> str | None:
        return self.sweep.scheduler

    @resolves
    def bestLoss(self) -> float | None:
        metric = self.sweep.config.get("metric") or {}
        runs = self.store.sweep_runs(self.sweep)
        values = [below(run.summary, metric.get("name", "")) for run in runs]
        numbers = [value for value in values if isinstance(value, int | float)]
        return (max if metric.get("goal") == "maximize" else min)(numbers, default=None)

    @resolves
    def runCount(self) -> int:
        return len(self.sweep.run_ids)

    @resolves
    def runCountExpected(self) -> int | None:
        return self.sweep.config.get("run_cap")

    @resolves
    def project(self) -> dict[str, Any]:
        return project_fields(self.store, self.sweep.entity, self.sweep.project)

    @resolves
    def runs(self, first: int | None = None, after: str | None = None) -> dict[str, Any]:
        return connection([RunNode(self.store, run) for run in self.store.sweep_runs(self.sweep)], first, after)

    @resolves
    def agents(self) -> dict[str, Any]:
        return connection([AgentNode(self.store, agent) for agent in self.sweep.agents])

    @resolves
    def agent(self, agentName: str) -> Node | None:
        return next((AgentNode(self.store, agent) for agent in self.sweep.agents if agent.id == agentName), None)
