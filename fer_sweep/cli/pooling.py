"""``fersweep agent --pool``: agents started where a file says, and followed until they end."""

import os
import select
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_sweep.cli.printing import print_json, say
from fer_sweep.errors import AgentFailed, NothingToDo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_sweep.agent.interrupts import Interrupts
    from fer_sweep.config.pool_file import PoolFile
    from fer_sweep.pools import Pool
    from fer_sweep.sweeps import Sweep

PoolPath = Annotated[
    Path | None,
    typer.Option(
        "--pool",
        metavar="FILE",
        help="Start agents where this file says, such as agents/slurm.yaml, and follow them.",
        show_default=False,
    ),
]
HowMany = Annotated[
    int | None,
    typer.Option("--agents", min=1, help="With --pool: how many [default: what its file says].", show_default=False),
]
GRACE_S = 60.0
"""How long agents that are told to end may take to write checkpoints."""
SECOND_THOUGHTS_S = 5.0
"""How long after a first Ctrl-C a second one counts."""


def work_in_pool(sweep: "Sweep", file: Path, agents: int | None, options: tuple[str, ...], *, as_json: bool) -> bool:
    """Start agents of a sweep where ``file`` says and follow them; returns whether a signal ended the following.

    Args:
        sweep: The sweep.
        file: The pool file.
        agents: How many; None for what the file says.
        options: Of each agent, as the command line has them.
        as_json: Print one JSON document at the end.
    """
    from fer_sweep.agent.interrupts import Interrupts, heard
    from fer_sweep.config.pool_file import load_pool_file
    from fer_sweep.pools import AgentCommand, Phase
    from fer_sweep.pools.following import follow, stop_all

    pool_file = load_pool_file(file)
    state = sweep.state
    if state not in ("running", "paused"):
        next_command = "resume" if state == "stopped" else "best"
        raise NothingToDo(f"sweep {sweep.id} is {state}", hint=f"fersweep {next_command} {sweep.id}")
    sweep.data.provide(say)
    _warn_of_storage(sweep, pool_file)
    command = AgentCommand(sweep.id, ("agent", sweep.argument, *options), sweep.folder / pool_file.kind)
    pool = open_pool(pool_file)
    interrupts = Interrupts()
    with heard(interrupts) as wakeup:  # from before they are started: none may be started and not named

        def wait(seconds: float) -> bool:
            # One that came while a scheduler was being asked has made it readable, too.
            if select.select([wakeup], [], [], seconds)[0]:
                os.read(wakeup, 4096)
            news, interrupts.heeded = interrupts.level > interrupts.heeded, interrupts.level
            return news

        ids = pool.start(command, agents or pool_file.agents)
        several = len(ids) > 1
        span = f"{ids[0]} to {ids[-1]}" if several else ids[0]
        say(f"{len(ids)} agent{'s' if several else ''} on sweep {sweep.id}: {span}")
        folder = shlex.quote(str(command.logs))
        say(f"what they print: {command.logs}; which one trained trial N: grep -l 'trial N[ :]' {folder}/*")
        states = follow(pool, say, wait)
        if interrupts.level and (not pool.outlives_us or _is_meant(ids, interrupts, wait)):
            say("agents write checkpoints and end")
            stop_all(pool, ids, grace_s=GRACE_S)
            states = pool.states()
    if as_json:
        phases = {agent_id: str(state.phase) for agent_id, state in states.items()}
        print_json({"sweep": sweep.id, "agents": phases, "interrupted": interrupts.level > 0})
    if interrupts.level:
        return True
    failed = [f"agent {agent_id} {state.note}" for agent_id, state in states.items() if state.phase is Phase.FAILED]
    if len(failed) == len(ids):
        raise AgentFailed(f"every agent failed: {'; '.join(failed[:3])}", hint="mend the cause, then run it again")
    for line in failed:
        say(f"note: {line}")
    return False


def _is_meant(ids: "Sequence[str]", interrupts: "Interrupts", wait: "Callable[[float], bool]") -> bool:
    """Whether a second Ctrl-C says that the agents should end, which work on without this command."""
    if interrupts.presses == interrupts.level == 1:  # a terminal that closes, or a kill, has no second thoughts
        say(f"the agents work on; Ctrl-C again within {SECOND_THOUGHTS_S:.0f} seconds ends them, with checkpoints")
        wait(SECOND_THOUGHTS_S)
    if interrupts.presses > 1:
        return True
    jobs = " ".join(dict.fromkeys(agent_id.partition("_")[0] for agent_id in ids))
    say(f"the agents work on: squeue --job {jobs}; to end them: scancel {jobs}")
    return False


def open_pool(pool_file: "PoolFile") -> "Pool":
    """The pool that a file describes."""
    from fer_sweep.config.pool_file import RayPool, SlurmPool
    from fer_sweep.pools.local import LocalAgents
    from fer_sweep.pools.ray_cluster import RayAgents
    from fer_sweep.pools.slurm import SlurmAgents

    if isinstance(pool_file, SlurmPool):
        return SlurmAgents(pool_file)
    return RayAgents(pool_file) if isinstance(pool_file, RayPool) else LocalAgents()


def _warn_of_storage(sweep: "Sweep", pool_file: "PoolFile") -> None:
    from fer_sweep.config.pool_file import RayPool

    is_here = pool_file.kind == "local" or (isinstance(pool_file, RayPool) and pool_file.address is None)
    if not is_here and sweep.entry.database.startswith("sqlite:"):
        another = sweep.storage_command("postgresql+psycopg://USER@HOST/DATABASE")
        here = sweep.entry.database
        say(f"note: only agents on this host can use {here}, where the sweep is; across nodes: {another}")
