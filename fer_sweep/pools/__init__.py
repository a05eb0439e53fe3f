"""Where agents are started: this host, Slurm, Ray; one file a place, Ray several."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fer_sweep.files import home

DONE_CODES = (0, 3)
"""Exit codes of an agent whose work is done: 3 says that there was nothing left to do."""
STOPPED_CODES = (130, -signal.SIGTERM)
"""Of one that was told to stop; the latter before it could hear signals."""


class Phase(StrEnum):
    """How far an agent is."""

    WAITING = "waiting"
    """For a place, or to be started again."""
    RUNNING = "running"
    DONE = "done"
    """Ended as it should: nothing left to do, or told to end."""
    FAILED = "failed"


@dataclass(frozen=True)
class AgentState:
    """What is known of one agent."""

    phase: Phase
    note: str = ""
    """Where it runs, what it waits for, how it ended; for a person."""

    @property
    def has_ended(self) -> bool:
        """Whether it has come to its end."""
        return self.phase in (Phase.DONE, Phase.FAILED)


@dataclass(frozen=True)
class AgentCommand:
    """What is started."""

    sweep: str
    """The id of the sweep that agents work on."""
    words: tuple[str, ...]
    """What follows ``fersweep``: ``agent``, the sweep, options."""
    logs: Path
    """A folder, which the agents must see too, for what they print: a file each."""


class Pool(Protocol):
    """Where agents are started.

    The plan had ``start`` start one agent. It starts several: to a scheduler they are one array, with one throttle.
    """

    outlives_us: bool
    """Whether its agents work on when the process that started them ends."""

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """Start some agents; gives the id of each.

        Raises:
            PoolError: None was started.
        """
        ...

    def states(self) -> Mapping[str, AgentState]:
        """Every agent started, by id.

        Raises:
            PoolError: There is no answer for now.
        """
        ...

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """End an agent, and return once it has ended: it has so long to write checkpoints before it is killed."""
        ...


def agent_environment() -> dict[str, str]:
    """What an agent inherits: the environment of this process, with fersweep's home spelt out."""
    return {**os.environ, "FERSWEEP_HOME": str(home())}
