"""Agents as the elements of a Slurm job array.

``sbatch`` gets everything that the pool file says as arguments, which count before any SBATCH_ variable and which no
shell reads, and a script that does what only the node can do: load modules, start the agent, pass signals on to it, and
queue the job again where the time limit is near. Trials themselves are in the sweep's storage and folder; Slurm is
asked for nothing but whether an agent waits, runs or has ended. ``sacct``, which needs a database, is not used.
"""

import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_sweep.config.pool_file import SlurmPool
from fer_sweep.errors import PoolError, cannot_write
from fer_sweep.host_processes import FERSWEEP
from fer_sweep.pools import AgentCommand, AgentState, Phase, agent_environment

ANSWER_S = 60.0
"""Slurm's commands give up by themselves after some ten seconds, and try again."""
POLL_S = 1.0
"""Between looking whether an agent that was told to stop has ended."""

_PHASES = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED"),
        Phase.WAITING,
    ),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING"), Phase.RUNNING),
    **dict.fromkeys(("COMPLETED", "CANCELLED"), Phase.DONE),
}
"""By squeue's state; every other one is a failure."""

_SCRIPT = """\
#!/bin/bash
# One agent of fersweep. SIGUSR2 comes before the time limit; SIGTERM with scancel, preemption and a node's shutdown.
echo "== agent ${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID, restart ${SLURM_RESTART_COUNT:-0}," \\
    "on $SLURMD_NODENAME at $(date '+%F %T')"
limit_is_near= told_to_end= child= code=0
trap 'limit_is_near=yes; tell USR2' USR2
trap 'told_to_end=yes; tell TERM' TERM

# What reaches a child that is still a copy of this shell is lost, so it has to have begun its program.
tell() {
    [ -n "$child" ] || return 0
    { while [ "$(< "/proc/$child/cmdline")" = "$(< "/proc/$$/cmdline")" ]; do sleep 0.01; done; } 2>/dev/null
    kill "-$1" "$child" 2>/dev/null
}

# A signal ends `wait` before the child ends, so it is asked until the child has gone.
until_it_ends() {
    "$@" &
    child=$!
    # A signal that came before its number was known.
    [ -z "$limit_is_near" ] || tell USR2
    [ -z "$told_to_end" ] || tell TERM
    wait "$child"; code=$?
    while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
    if [ "$code" -gt 128 ]; then
        wait "$child" 2>/dev/null; local again=$?
        [ "$again" -eq 127 ] || code=$again
    fi
    child=
}

@MODULES@
agent() { until_it_ends @AGENT@; }

if [ -n "$limit_is_near$told_to_end" ]; then code=130; else agent; fi
# Started again by Slurm, with nothing to do, but trials are running: one of them may be that of a node that was lost,
# which is handed out once its lease has run out.
if [ "$code" -eq 3 ] && [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && @STATUS@ 2>/dev/null | grep -q '"state": "running"'
then
    until_it_ends sleep "${FERSWEEP_LEASE_S:-60}"
    [ "$code" -ne 0 ] || agent
fi
if [ -n "$told_to_end" ] && [ "$code" -gt 128 ]; then
    code=0  # as it should be; where it was a preemption, Slurm itself queues the job again
elif [ -n "$limit_is_near" ] && [ "$code" -gt 128 ]; then
    echo "== the time limit is near: queued again, to go on from the checkpoints"
    scontrol requeue "$SLURM_JOB_ID" || echo "== it cannot be queued again: run fersweep agent --pool once more"
fi
[ "$code" -ne 3 ] || code=0  # nothing left to do is no failure
exit "$code"
"""


class SlurmAgents:
    """Agents in job arrays of one cluster."""

    outlives_us = True

    def __init__(self, pool: SlurmPool, *, poll_s: float = POLL_S) -> None:
        self._pool = pool
        self._poll_s = poll_s
        self._logs: dict[str, Path] = {}
        """By agent."""
        self._ended: dict[str, AgentState] = {}

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """See ``Pool.start``: one array.

        Raises:
            PoolError: There is no Slurm here, or it refuses.
            StorageError: The folder of the logs cannot be written.
        """
        try:
            command.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(command.logs, error) from error
        answer = _ask(sbatch_words(self._pool, command, agents), script(self._pool, command))
        job = answer.strip().partition(";")[0]  # a cluster's name may follow
        if not job.isdecimal():
            raise PoolError(f"sbatch answered {answer.strip()[:200]!r} where a job's number was expected")
        ids = [f"{job}_{number}" for number in range(agents)]
        self._logs |= {agent_id: command.logs / f"{agent_id}.log" for agent_id in ids}
        return ids

    def states(self) -> Mapping[str, AgentState]:
        """See ``Pool.states``."""
        jobs = ",".join(dict.fromkeys(agent_id.partition("_")[0] for agent_id in self._logs))
        try:
            words = ("squeue", "--noheader", "--array", "--states=all", f"--jobs={jobs}", "--format=%i|%T|%N|%r")
            answer = _ask(words) if jobs else ""
        except PoolError as error:
            if "Invalid job id" not in str(error):
                raise
            answer = ""  # Slurm forgets jobs some minutes after their end
        seen = {}
        for line in answer.splitlines():
            agent_id, *rest = line.split("|", 3)
            if agent_id in self._logs and len(rest) == 3:
                seen[agent_id] = _state(rest[0], rest[1], rest[2], self._logs[agent_id])
        self._ended |= {agent_id: state for agent_id, state in seen.items() if state.has_ended}
        forgotten = AgentState(Phase.DONE, "Slurm no longer knows how")
        return {agent_id: seen.get(agent_id) or self._ended.get(agent_id, forgotten) for agent_id in self._logs}

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """See ``Pool.stop``.

        Raises:
            PoolError: Slurm does not answer.
        """
        deadline = time.monotonic() + grace_s
        if self.states()[agent_id].phase is Phase.RUNNING:
            # To the script alone, which passes it on. A plain scancel leaves no longer than the cluster's KillWait.
            _ask(("scancel", "--quiet", "--batch", "--signal=TERM", agent_id))
            while self.states()[agent_id].phase is Phase.RUNNING and time.monotonic() < deadline:
                time.sleep(self._poll_s)
        if not self.states()[agent_id].has_ended:
            _ask(("scancel", "--quiet", agent_id))
            while not self.states()[agent_id].has_ended:
                time.sleep(self._poll_s)


def sbatch_words(pool: SlurmPool, command: AgentCommand, agents: int) -> tuple[str, ...]:
    """The call of sbatch that submits an array of agents."""
    given = {
        "partition": pool.partition,
        "account": pool.account,
        "qos": pool.qos,
        "gres": pool.gres,
        "cpus-per-task": pool.cpus,
        "mem": pool.memory,
        "time": pool.time,
    }
    throttle = f"%{pool.at_once}" if pool.at_once else ""
    output = str(command.logs).replace("%", "%%")
    return (
        "sbatch",
        "--parsable",
        f"--job-name=fersweep-{command.sweep}",
        f"--array=0-{agents - 1}{throttle}",
        "--nodes=1",
        "--ntasks=1",
        *(f"--{name}={value}" for name, value in given.items() if value is not None),
        f"--signal=B:USR2@{pool.notice_s}",
        "--requeue",
        "--open-mode=append",
        f"--output={output}/%A_%a.log",
        f"--chdir={Path.cwd()}",
        "--export=ALL",
        *pool.sbatch,
    )


def script(pool: SlurmPool, command: AgentCommand) -> str:
    """The batch script of an agent."""
    start = (*(pool.container or ()), *(pool.command or FERSWEEP))
    modules = "".join(f"module load {shlex.quote(name)} || exit\n" for name in pool.modules)
    if modules:  # on many clusters only login shells have it
        modules = f"type module >/dev/null 2>&1 || . /etc/profile\n{modules}"
    parts = {
        "@MODULES@": modules,
        "@AGENT@": shlex.join((*start, *command.words)),
        "@STATUS@": shlex.join((*start, "status", command.sweep, "--json")),
    }
    return re.sub("|".join(parts), lambda match: parts[match[0]], _SCRIPT)


def _state(state: str, node: str, reason: str, log: Path) -> AgentState:
    phase = _PHASES.get(state, Phase.FAILED)
    if phase is Phase.WAITING:
        return AgentState(phase, reason if reason not in ("None", "") else state.lower())
    if phase is Phase.RUNNING:
        return AgentState(phase, f"on {node}, log {log}")
    if phase is Phase.DONE:
        return AgentState(phase, "cancelled" if state == "CANCELLED" else "")
    return AgentState(phase, f"{state.lower().replace('_', ' ')}: see {log}")


def _ask(words: Sequence[str], text: str = "") -> str:
    """Run one of Slurm's commands; gives what it prints."""
    environment = agent_environment()
    # Inside a job, such as an interactive one, these would tell sbatch what that job has, and clash with what is asked.
    for name in [name for name in environment if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        del environment[name]
    try:
        done = subprocess.run(
            words,
            input=text,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            env=environment,
            check=False,
            process_group=0,  # a terminal's Ctrl-C is meant for us
        )
    except FileNotFoundError:
        raise PoolError(f"no {words[0]} here", hint="run this where Slurm is, such as on the login node") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PoolError(f"{words[0]} does not answer: {error}", hint="try again; `sinfo` shows how Slurm is") from None
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise PoolError(f"{words[0]} refuses: {said}", hint="`sinfo` shows partitions, gres and limits")
    return done.stdout
