"""Agents as processes of this host: each has its own log and ends with the process that started it."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_sweep.errors import writing
from fer_sweep.host_processes import FERSWEEP, KILL
from fer_sweep.pools import AgentCommand, AgentState, Phase, agent_environment, state_of_ended
from fer_sweep.pools.agent_process import AgentProcess

POLL_S = 0.1
"""Seconds between two polls of an agent that is being stopped."""


class LocalAgents:
    """Agents as processes of this host."""

    outlives_us = False

    def __init__(self, command: Sequence[str] = FERSWEEP) -> None:
        self._command = command
        self._agents: dict[str, tuple[AgentProcess, Path]] = {}

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """See ``Pool.start``."""
        words = [*self._command, *command.words]
        for agent_id in map(str, range(agents)):
            log = command.logs / f"local-{os.getpid()}-{agent_id}.log"
            process = AgentProcess()
            with writing(log):
                process.start(words, agent_environment(), str(Path.cwd()), str(log), f"agent {agent_id}")
            self._agents[agent_id] = (process, log)
        return list(self._agents)

    def states(self) -> Mapping[str, AgentState]:
        """See ``Pool.states``."""
        states = {}
        for agent_id, (process, log) in self._agents.items():
            code = process.poll()
            running = AgentState(Phase.RUNNING, f"log {log}")
            states[agent_id] = running if code is None else state_of_ended(code, log)
        return states

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """See ``Pool.stop``."""
        process, _ = self._agents[agent_id]
        process.tell(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while process.poll() is None:
            if time.monotonic() >= deadline:
                process.tell(KILL)
            time.sleep(POLL_S)
