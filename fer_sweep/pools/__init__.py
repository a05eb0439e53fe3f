"""Where agents are started: on this host (``local``), on Slurm (``slurm``), on Ray (``ray_*``)."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fer_sweep.files import home

DONE_CODES = (0, 3)
"""Exit codes of an agent without further work; 3 means that no trials were left when it started."""
STOPPED_CODES = (130, -signal.SIGTERM)
"""Exit codes of an agent that was told to stop; the latter before it handles signals."""


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


@dataclass(frozen=True)
class AgentCommand:
    """The command of an agent."""

    sweep: str
    """The id of the sweep."""
    words: tuple[str, ...]
    """The words after ``fersweep``: ``agent``, the sweep, options."""
    logs: Path
    """A folder that all agents reach, with a log file of each."""


class Pool(Protocol):
    """A place to start agents. Several are started at once, since to Slurm they are one array with one throttle."""

    outlives_us: bool
    """Whether agents keep running when the process that started them ends."""

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """Start agents; returns the id of each.

        Raises:
            PoolError: No agent was started.
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
