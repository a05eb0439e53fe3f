"""Where agents are started, and how they are followed: on this host (``local``), Slurm (``slurm``), Ray (``ray_*``)."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fer_sweep.errors import PoolError
from fer_sweep.files import home

FOLLOW_S = 5.0
"""Seconds between two queries; a shared scheduler should not be queried more often."""
MOST_NAMED = 6
"""Agents named in one line."""
AT_ONCE = 8
"""Agents that are stopped at the same time."""


class Phase(StrEnum):
    """The phase of an agent's life."""

    WAITING = "waiting"
    """For resources, for a trial or for its restart."""
    RUNNING = "running"
    DONE = "done"
    """Ended without error: no trials left, or told to stop."""
    FAILED = "failed"


@dataclass(frozen=True)
class AgentState:
    """The state of one agent."""

    phase: Phase
    note: str = ""
    """Where it runs, what it waits for or how it ended, to be printed."""

    @property
    def has_ended(self) -> bool:
        """Whether it is done or has failed."""
        return self.phase in (Phase.DONE, Phase.FAILED)


def state_of_ended(code: int, log: str | Path) -> AgentState:
    """The state of an agent that has ended with an exit code."""
    if code in (0, 3):  # 3: no trials were left when it started
        return AgentState(Phase.DONE)
    if code in (130, -signal.SIGTERM):  # the latter before it handles signals
        return AgentState(Phase.DONE, "stopped")
    return AgentState(Phase.FAILED, f"exit code {code}: see {log}")


@dataclass(frozen=True)
class AgentCommand:
    """The command of an agent."""

    sweep: str
    """The id of the sweep."""
    words: tuple[str, ...]
    """The words after ``fersweep``: ``agent``, the sweep, options."""
    logs: Path
    """A folder that all agents reach, with a log file of each; it exists."""


class Pool(Protocol):
    """A place to start agents. Several are started at once, since to Slurm they are one array with one throttle."""

    outlives_us: bool
    """Whether agents keep running when the process that started them ends."""

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """Start agents; returns the id of each.

        Raises:
            PoolError: No agent was started.
            StorageError: The logs cannot be written.
        """
        ...

    def states(self) -> Mapping[str, AgentState]:
        """The state of every agent, by id.

        Raises:
            PoolError: The scheduler does not respond.
        """
        ...

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """Stop an agent and return once it has ended; it is killed after ``grace_s`` seconds for checkpoints."""
        ...


def agent_environment() -> dict[str, str]:
    """The environment of an agent: that of this process, with an explicit FERSWEEP_HOME."""
    return {**os.environ, "FERSWEEP_HOME": str(home())}


def follow(pool: Pool, say: Callable[[str], None], wait: Callable[[float], bool]) -> Mapping[str, AgentState]:
    """Report changes of the agents' states until all have ended or ``wait`` was interrupted.

    Args:
        pool: The pool of the agents.
        say: Receives a line for each change.
        wait: Waits this many seconds; returns whether it was interrupted.
    """
    shown: dict[str, AgentState] = {}
    answers = True
    while True:
        try:
            states = pool.states()
        except PoolError as error:  # a scheduler that restarts or is overloaded; agents run without it
            if answers:
                say(f"{error}; retrying")
            answers = False
        else:
            changed = [agent_id for agent_id, state in states.items() if shown.get(agent_id) != state]
            for state in dict.fromkeys(states[agent_id] for agent_id in changed):
                agents = [agent_id for agent_id in changed if states[agent_id] == state]
                say(f"{_named(agents)}: {state.phase}{f' ({state.note})' if state.note else ''}")
            shown, answers = dict(states), True
            if all(state.has_ended for state in states.values()):
                return shown
        if wait(FOLLOW_S):
            return shown


def stop_all(pool: Pool, agents: Sequence[str], *, grace_s: float) -> None:
    """Stop agents, several at a time, and return once they have ended.

    Raises:
        PoolError: Some could not be stopped.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for stopped in [threads.submit(pool.stop, agent_id, grace_s=grace_s) for agent_id in agents]:
            stopped.result()


def _named(agents: Sequence[str]) -> str:
    """The names of some agents, shortened.

    >>> _named(["7_0"]), _named(["7_0", "7_1"])
    ('agent 7_0', 'agents 7_0, 7_1')
    """
    more = len(agents) - MOST_NAMED
    names = ", ".join(agents[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"agent{'s' if len(agents) > 1 else ''} {names}"
