"""``fersweep agent --pool``: start agents in a pool and follow them until they end."""

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
        help="Start agents in the pool of this file, such as agents/slurm.yaml, and follow them.",
        show_default=False,
    ),
]
HowMany = Annotated[
    int | None,
    typer.Option(
        "--agents", min=1, help="With --pool: number of agents [default: that of the file].", show_default=False
    ),
]
GRACE_S = 60.0
"""Seconds that stopped agents have to write checkpoints."""
SECOND_THOUGHTS_S = 5.0
"""Seconds after a first Ctrl-C in which a second one stops the agents."""


def work_in_pool(sweep: "Sweep", file: Path, agents: int | None, options: tuple[str, ...], *, as_json: bool) -> bool:
    """Start agents of a sweep in a pool and follow them; returns whether a signal interrupted this.

    Args:
        sweep: The sweep.
        file: The pool file.
        agents: Number of agents; None for that of the file.
        options: The options of each agent, as on the command line.
        as_json: Print one JSON document at the end.
    """
    from fer_sweep.agent.interrupts import Interrupts, handling_signals
    from fer_sweep.config.pool_file import load_pool_file
    from fer_sweep.pools import AgentCommand, Phase, follow, stop_all
    from fer_sweep.shipped import resolve

    pool_file = load_pool_file(resolve("agents", file))
    state = sweep.state
    if state not in ("running", "paused"):
        next_command = "resume" if state == "stopped" else "best"
        raise NothingToDo(f"sweep {sweep.id} is {state}", hint=f"fersweep {next_command} {sweep.id}")
    sweep.data.provide(say)
    _warn_of_storage(sweep, pool_file)
    command = AgentCommand(sweep.id, ("agent", sweep.argument, *options), sweep.folder / pool_file.kind)
    pool = open_pool(pool_file)
    interrupts = Interrupts()
    with handling_signals(interrupts) as wakeup:  # before the start: a signal must not leave unnamed agents

        def wait(seconds: float) -> bool:
            # Readable too after a signal during a query of the scheduler.
            if select.select([wakeup], [], [], seconds)[0]:
                os.read(wakeup, 4096)
            news, interrupts.heeded = interrupts.level > interrupts.heeded, interrupts.level
            return news

        ids = pool.start(command, agents or pool_file.agents)
        several = len(ids) > 1
        span = f"{ids[0]} to {ids[-1]}" if several else ids[0]
        say(f"{len(ids)} agent{'s' if several else ''} on sweep {sweep.id}: {span}")
        folder = shlex.quote(str(command.logs))
        say(f"logs: {command.logs}; which agent trained trial N: grep -l 'trial N[ :]' {folder}/*")
        states = follow(pool, say, wait)
        if interrupts.level and (not pool.outlives_us or _is_meant(ids, interrupts, wait)):
            say("stopping the agents, which write checkpoints")
            stop_all(pool, ids, grace_s=GRACE_S)
            states = pool.states()
    if as_json:
        phases = {agent_id: str(state.phase) for agent_id, state in states.items()}
        print_json({"sweep": sweep.id, "agents": phases, "interrupted": interrupts.level > 0})
    if interrupts.level:
        return True
    failed = [f"agent {agent_id} {state.note}" for agent_id, state in states.items() if state.phase is Phase.FAILED]
    if len(failed) == len(ids):
        raise AgentFailed(
            f"every agent failed: {'; '.join(failed[:3])}", hint="fix the cause, then run the command again"
        )
    for line in failed:
        say(f"note: {line}")
    return False


def _is_meant(ids: "Sequence[str]", interrupts: "Interrupts", wait: "Callable[[float], bool]") -> bool:
    """Whether a second Ctrl-C asks to stop agents that keep running without this command."""
    if interrupts.presses == interrupts.level == 1:  # not when the terminal closes or the command is killed
        say(
            f"the agents keep running; Ctrl-C again within {SECOND_THOUGHTS_S:.0f} seconds stops them, with checkpoints"
        )
        wait(SECOND_THOUGHTS_S)
    if interrupts.presses > 1:
        return True
    jobs = " ".join(dict.fromkeys(agent_id.partition("_")[0] for agent_id in ids))
    say(f"the agents keep running: squeue --job {jobs}; to stop them: scancel {jobs}")
    return False


def open_pool(pool_file: "PoolFile") -> "Pool":
    """The pool of a pool file."""
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
        say(f"note: only agents on this host can use {here}; for several nodes: {another}")
