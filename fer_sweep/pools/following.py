"""Following the agents of a pool: a line for every change, until all have ended."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentState, Pool

FOLLOW_S = 5.0
"""Between two looks at the agents: a scheduler serves everybody, and asks not to be asked more often."""
MOST_NAMED = 6
"""Agents in one line."""
AT_ONCE = 8
"""Agents that are told to end at the same time."""


def follow(pool: Pool, say: Callable[[str], None], wait: Callable[[float], bool]) -> Mapping[str, AgentState]:
    """Say what becomes of the agents until all have ended, or ``wait`` was cut short.

    Args:
        pool: Whose agents.
        say: Gets a line for each change.
        wait: Waits so many seconds; returns whether it was interrupted.

    Returns:
        The agents as they were last seen.
    """
    shown: dict[str, AgentState] = {}
    answers = True
    while True:
        try:
            states = pool.states()
        except PoolError as error:  # a scheduler that restarts, or has too much to do; the agents do not need it
            if answers:
                say(f"{error}; asking again")
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
    """End agents, several at a time, and return once they have ended.

    Raises:
        PoolError: They could not all be told.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for stopped in [threads.submit(pool.stop, agent_id, grace_s=grace_s) for agent_id in agents]:
            stopped.result()


def _changes(before: Mapping[str, AgentState], now: Mapping[str, AgentState]) -> dict[AgentState, list[str]]:
    """The agents whose state is another one, by their new state."""
    changes: dict[AgentState, list[str]] = {}
    for agent_id, state in now.items():
        if before.get(agent_id) != state:
            changes.setdefault(state, []).append(agent_id)
    return changes


def _named(agents: Sequence[str]) -> str:
    """Agents in few words.

    >>> _named(["7_0"]), _named(["7_0", "7_1"])
    ('agent 7_0', 'agents 7_0, 7_1')
    """
    more = len(agents) - MOST_NAMED
    names = ", ".join(agents[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"agent{'s' if len(agents) > 1 else ''} {names}"
