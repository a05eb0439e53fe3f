"""Commands that train sweeps, on this host or in a pool: agent and run."""

import select
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_sweep.cli.options import AgentOptions, File, Json, SweepId, SweepOptions
from fer_sweep.cli.printing import console, log_warnings, note, print_json, print_text, say
from fer_sweep.cli.results import show_best
from fer_sweep.cli.sweeps import new_sweep
from fer_sweep.errors import AgentFailed, InputError, NothingToDo, PoolError, writing
from fer_sweep.formatting import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fer_sweep.agent.interrupts import Interrupts
    from fer_sweep.agent.running import AgentSummary
    from fer_sweep.config.pool_file import PoolFile
    from fer_sweep.pools import Pool
    from fer_sweep.sweeps import Sweep

GRACE_S = 60.0
"""Seconds that stopped agents have to write checkpoints."""
SECOND_THOUGHTS_S = 5.0
"""Seconds after a first Ctrl-C in which a second one stops the agents."""
FREED_S = 2.0
"""Seconds in which an agent says that a drained slot is free already."""
POLL_S = 0.1
"""Seconds between two looks at whether a drained slot is free."""


def agent(
    sweep: SweepId = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after this many attempts, resumed trials included; none is paused.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Queue failed trials again first.")] = False,
    *,
    options: AgentOptions,
    pool: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Start agents in the pool of this file, such as agents/slurm.yaml, and follow them."
        ),
    ] = None,
    agents: Annotated[
        int | None, typer.Option(min=1, help="With --pool: number of agents [default: that of the file].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a sweep's trials until none is left.

    Ctrl-C once: no new trials. Twice: checkpoint and stop. Three times: kill. The same command resumes the sweep.

    With --hours or --deadline, no trial starts that cannot finish in time, judged by those that have finished; what is
    running shortly before the end is checkpointed.

    With --pool, agents are started elsewhere and followed. On Slurm, Ctrl-C ends only the following, and a second one
    within five seconds ends the agents with checkpoints. On Ray the agents end with this command.

    Example: fersweep agent --gpus 0,1 --per-gpu 2
    """
    from fer_sweep.sweeps import open_sweep

    if agents is not None and pool is None:
        raise InputError("--agents needs --pool FILE", hint="on this host: --pool agents/local.yaml")
    if options.mirror is not None and pool is not None:
        raise InputError("--mirror is for an agent on this host", hint="remove --mirror or --pool")
    options = with_fixed_end(options)
    with open_sweep(sweep, note=note) as opened:
        if retry_failed and (queued := opened.retry()):
            say(f"queued again: trial {', '.join(queued)}")
        if pool is None:
            summary = work(opened, options, count=count, as_json=as_json)
            command = "retry" if set(summary.ended) == {"failed"} else opened.choosing_command
            if summary.timed_out and not summary.has_value:
                return  # it was said how to train on, and there is nothing to choose from
        else:
            work_in_pool(opened, pool, agents, options.words(count), as_json=as_json)
            if options.deadline is not None:
                _say_what_is_left(opened, None)
            command = opened.choosing_command
    say(f"next: fersweep {command} {opened.id}")


def run(file: File, options: SweepOptions, agent: AgentOptions, as_json: Json = False) -> None:
    """Create a sweep, train it and show the winner.

    Example: fersweep run simple_cnn --data synthetic --set epochs=4 --count 6
    """
    agent = with_fixed_end(agent)
    if agent.mirror is not None:
        from fer_sweep.mirror.copying import check_mirror

        # Before a sweep is made: a home that has a sweep refuses to restore the mirror of a former machine.
        check_mirror(agent.mirror, options.storage)
    with new_sweep(file, options, agent) as made:
        say(f"sweep {made.id}")
        summary = work(made, agent, quiet=as_json)
        if summary.has_value or not summary.timed_out:
            show_best([made], as_json=as_json)


def with_fixed_end(options: AgentOptions) -> AgentOptions:
    """The options with ``--hours`` and a time of day replaced by a date and time: the same for all agents of a pool.

    Raises:
        InputError: They do not say when to end.
        NothingToDo: That time has passed.
    """
    from datetime import datetime

    from fer_sweep.agent.deadline import Deadline, end_of

    end = end_of(options.hours, options.deadline, now=datetime.now().astimezone())
    return options if end is None else replace(options, hours=None, deadline=Deadline(end).at.isoformat())


def work(
    sweep: "Sweep",
    options: AgentOptions,
    *,
    count: int | None = None,
    as_json: bool = False,
    quiet: bool = False,
    resumed_by: str = "",
) -> "AgentSummary":
    """Run an agent on a sweep; after an interrupt, name the command that resumes it and exit with 130.

    Its view is shown on stdout, unless the calling command is ``quiet`` there.
    """
    from datetime import datetime

    from fer_sweep.agent.failures import OnOom
    from fer_sweep.agent.session import slots_here, work_on

    log_warnings()
    per_gpu, cpu_slots = options.slot_counts
    slots = slots_here(
        sweep, options.gpus, per_gpu=per_gpu, slots=cpu_slots, measure_cpu=options.slots == "auto", say=say
    )
    summary = work_on(
        sweep,
        slots,
        console=console(stderr=as_json or quiet),
        count=count,
        keep_models=options.upload_models,
        on_oom=OnOom(options.on_oom),
        hang_after_s=options.hang_after,
        mirror=options.mirror,
        end=datetime.fromisoformat(options.deadline) if options.deadline else None,
    )
    if as_json:
        print_json({"sweep": sweep.id, "ended": summary.ended, "interrupted": summary.interrupted})
    if summary.turnaround_s:
        waits = sorted(summary.turnaround_s)
        say(f"from the end of a trial to the next one's first step: {waits[len(waits) // 2]:.2f} s (median)")
    if summary.interrupted:
        say(f"next: {resumed_by or f'fersweep agent {sweep.id}'} resumes it")
        raise typer.Exit(130)
    if summary.timed_out:
        _say_what_is_left(sweep, len(slots), resumed_by)
    return summary


def _say_what_is_left(sweep: "Sweep", slots: int | None, resumed_by: str = "") -> None:
    """After a deadline, say how many trials are left and how to train them."""
    from fer_sweep.sweeps.forecast import forecast

    trials = sweep.trials()
    left = forecast(trials, planned=sweep.planned, slots=slots)
    if left.trials != 0 or left.paused:
        none = "" if any(trial.state.has_value for trial in trials) else "no trial is complete, so give it more time; "
        say(f"the deadline has come; {none}{left}; resume: {resumed_by or f'fersweep agent {sweep.id}'}")


def drain(
    slot: Annotated[str, typer.Argument(metavar="SLOT|GPU", help="Such as gpu1, gpu0/1, cpu0, or a GPU's number.")],
    now: Annotated[
        bool, typer.Option("--now", help="Checkpoint the trial that runs there; another slot resumes it.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Let the agents use it again.")] = False,
) -> None:
    """Free a slot or a GPU that agents on this host use.

    They start no further trial there. It is free after its trial, or with --now after a checkpoint.

    Example: fersweep drain gpu1 --now
    """
    import time

    from fer_sweep.agent import draining

    if now and undo:
        raise InputError("--now cannot be combined with --undo", hint="remove one of them")
    drained = draining.drain(slot, now=now, undo=undo)
    if undo:
        print_text("\n".join(f"sweep {found.sweep}: slot {found.slot} takes trials again" for found in drained))
        return
    deadline = time.monotonic() + (GRACE_S if now else FREED_S)
    while not all(found.is_free for found in drained) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for found in drained:
        state = "free" if found.is_free else f"drained, and free after its {'checkpoint' if now else 'trial'}"
        print_text(f"sweep {found.sweep}: slot {found.slot} is {state}")
    if not now and not all(found.is_free for found in drained):
        say(f"to free it at once, with a checkpoint: fersweep drain {slot} --now")
    say(f"to undo: fersweep drain --undo {slot}")


def work_in_pool(sweep: "Sweep", file: Path, agents: int | None, options: tuple[str, ...], *, as_json: bool) -> None:
    """Start agents of a sweep in the pool of a file and follow them; after an interrupt, exit with 130.

    ``options`` are those of each agent, as words of a command line.
    """
    from fer_sweep.agent.interrupts import Interrupts, handling_signals
    from fer_sweep.config.pool_file import load_pool_file
    from fer_sweep.pools import AgentCommand, Phase, follow, stop_all
    from fer_sweep.shipped import resolve
    from fer_sweep.sweeps import OPEN_STATES
    from fer_sweep.sweeps.next_steps import next_command

    pool_file = load_pool_file(resolve("agents", file))
    state = sweep.state
    if state not in OPEN_STATES:
        hint = f"fersweep {next_command(sweep, state, sweep.trials())}"
        raise NothingToDo(f"sweep {sweep.id} is {state}", hint=hint)
    sweep.data.provide(say)
    _warn_of_storage(sweep, pool_file)
    command = AgentCommand(sweep.id, ("agent", sweep.argument, *options), sweep.folder / pool_file.kind)
    with writing(command.logs):
        command.logs.mkdir(parents=True, exist_ok=True)
    pool = open_pool(pool_file)
    interrupts = Interrupts()
    with handling_signals(interrupts) as wakeup:  # before the start: a signal must not leave unnamed agents

        def wait(seconds: float) -> bool:
            # Readable too after a signal during a query of the scheduler.
            ready, _, _ = select.select([wakeup], [], [], seconds)
            return bool(ready and wakeup.recv(4096))

        ids = pool.start(command, agents or pool_file.agents)
        names = f"{ids[0]} to {ids[-1]}" if len(ids) > 1 else ids[0]
        say(f"{counted(len(ids), 'agent')} on sweep {sweep.id}: {names}")
        folder = shlex.quote(str(command.logs))
        say(f"logs: {command.logs}; which agent trained trial N: grep -l 'trial N[ :]' {folder}/*")
        states = follow(pool, say, wait)
        if interrupts.level and (not pool.outlives_us or _is_meant(ids, interrupts, wait)):
            say("stopping the agents, which write checkpoints")
            stop_all(pool, ids, grace_s=GRACE_S)
            states = pool.states()
    if as_json:
        phases = {agent_id: state.phase for agent_id, state in states.items()}
        print_json({"sweep": sweep.id, "agents": phases, "interrupted": interrupts.level > 0})
    if interrupts.level:
        say(f"next: fersweep status {sweep.id}")
        raise typer.Exit(130)
    failed = [f"agent {agent_id} {state.note}" for agent_id, state in states.items() if state.phase is Phase.FAILED]
    if len(failed) == len(ids):
        hint = "fix the cause, then run the command again"
        raise AgentFailed(f"every agent failed: {'; '.join(failed[:3])}", hint=hint)
    for line in failed:
        note(line)


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


def _check_platform() -> None:
    if sys.platform == "win32":
        hint = "run fersweep agent without --pool, or fersweep in WSL"
        raise PoolError("pools start no agents on Windows yet", hint=hint)


def open_pool(pool_file: "PoolFile") -> "Pool":
    """The pool of a pool file."""
    from fer_sweep.config.pool_file import RayPool, SlurmPool
    from fer_sweep.pools.local import LocalAgents
    from fer_sweep.pools.ray_cluster import RayAgents
    from fer_sweep.pools.slurm import SlurmAgents

    _check_platform()
    if isinstance(pool_file, SlurmPool):
        return SlurmAgents(pool_file)
    return RayAgents(pool_file) if isinstance(pool_file, RayPool) else LocalAgents()


def _warn_of_storage(sweep: "Sweep", pool_file: "PoolFile") -> None:
    from fer_sweep.config.pool_file import RayPool

    is_here = pool_file.kind == "local" or (isinstance(pool_file, RayPool) and pool_file.address is None)
    if not is_here and sweep.entry.database.startswith("sqlite:"):
        another = sweep.storage_command("postgresql+psycopg://USER@HOST/DATABASE")
        note(f"only agents on this host can use {sweep.entry.database}; for several nodes: {another}")
