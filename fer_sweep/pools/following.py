"""Follow the agents of a pool: print a line for every change until all have ended."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentState, Pool

FOLLOW_S = 5.0
"""Seconds between two queries; a shared scheduler should not be queried more often."""
MOST_NAMED = 6
"""Agents named in one line."""
AT_ONCE = 8
"""Agents that are stopped at the same time."""


def follow(pool: Pool, say: Callable[[str], None], wait: Callable[[float], bool]) -> Mapping[str, AgentState]:
    """Report changes of the agents' states until all have ended or ``wait`` was interrupted.

    Args:
        pool: The pool of the agents.
        say: Receives a line for each change.
        wait: Waits this many seconds; returns whether it was interrupted.

    Returns:
        The last known states.
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
            for state, agents in _changes(shown, states).items():
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


def _changes(before: Mapping[str, AgentState], now: Mapping[str, AgentState]) -> dict[AgentState, list[str]]:
    """The agents whose state has changed, by new state."""
    changes: dict[AgentState, list[str]] = {}
    for agent_id, state in now.items():
        if before.get(agent_id) != state:
            changes.setdefault(state, []).append(agent_id)
    return changes


def _named(agents: Sequence[str]) -> str:
    """The names of some agents, shortened.

    >>> _named(["7_0"]), _named(["7_0", "7_1"])
    ('agent 7_0', 'agents 7_0, 7_1')
    """
    more = len(agents) - MOST_NAMED
    names = ", ".join(agents[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"agent{'s' if len(agents) > 1 else ''} {names}"
