"""Agents as the elements of a Slurm job array.

``sbatch`` gets the settings of the pool file as arguments, which override any SBATCH_ variable and are read by no
shell. The batch script does what only the node can do: load modules, start the agent, forward signals to it, and
requeue the job before its time limit. ``scontrol`` is called by the script and not by the agent, because a container
that the agent runs in usually lacks Slurm's commands. ``sacct``, which needs a database, is not used.
"""

import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_sweep.config.pool_file import SlurmPool
from fer_sweep.errors import PoolError
from fer_sweep.host_processes import FERSWEEP
from fer_sweep.pools import AgentCommand, AgentState, Phase, agent_environment

ANSWER_S = 60.0
"""Timeout of a Slurm command, which retries by itself for some ten seconds."""
POLL_S = 1.0
"""Seconds between two queries while an agent is being stopped."""

_PHASES = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED"),
        Phase.WAITING,
    ),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING"), Phase.RUNNING),
    **dict.fromkeys(("COMPLETED", "CANCELLED"), Phase.DONE),
}
"""By squeue's state; any other state is a failure."""

_BEFORE = """\
#!/bin/bash
# One agent of fersweep. Slurm signals this script: SIGUSR2 before the time limit, SIGTERM to stop or preempt it.
echo "== agent ${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID, restart ${SLURM_RESTART_COUNT:-0}," \\
    "on $SLURMD_NODENAME at $(date '+%F %T')"
"""
_TRAPS = """\
limit_is_near=
trap 'limit_is_near=yes; kill -USR2 $! 2>/dev/null' USR2
trap 'limit_is_near=; kill -TERM $! 2>/dev/null' TERM
"""
_AFTER = """\
while kill -0 $! 2>/dev/null; do wait $!; done  # a signal ends `wait` before the agent ends
wait $!; code=$?  # Bash remembers the code

case $code in
    3) exit 0 ;;  # no trials left
    130 | 140 | 143) ;;  # stopped by SIGUSR2 or SIGTERM
    *) exit $code ;;
esac
if [ -n "$limit_is_near" ]; then
    echo "== the time limit is near: the job is requeued and resumes its trials from their checkpoints"
    scontrol requeue "$SLURM_JOB_ID" || echo "== the job cannot be requeued: run fersweep agent --pool again"
fi
exit 0  # after a preemption Slurm itself requeues the job
"""


class SlurmAgents:
    """Agents in job arrays of one cluster."""

    outlives_us = True

    def __init__(self, pool: SlurmPool, *, poll_s: float = POLL_S) -> None:
        self._pool = pool
        self._poll_s = poll_s
        self._logs: dict[str, Path] = {}
        """Log file of each agent, by id."""
        self._ended: dict[str, AgentState] = {}

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """See ``Pool.start``: one array."""
        answer = _ask(sbatch_words(self._pool, command, agents), script(self._pool, command))
        job = answer.strip().partition(";")[0]  # a cluster's name may follow
        if not job.isdecimal():
            raise PoolError(f"sbatch printed {answer.strip()[:200]!r} instead of a job number")
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
            answer = ""  # Slurm drops jobs some minutes after their end
        seen = {}
        for line in answer.splitlines():
            agent_id, *rest = line.split("|", 3)
            if agent_id in self._logs and len(rest) == 3:
                seen[agent_id] = _state(rest[0], rest[1], rest[2], self._logs[agent_id])
        self._ended |= {agent_id: state for agent_id, state in seen.items() if state.has_ended}
        forgotten = AgentState(Phase.DONE, "Slurm has dropped its record")
        return {agent_id: seen.get(agent_id) or self._ended.get(agent_id, forgotten) for agent_id in self._logs}

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """See ``Pool.stop``."""
        deadline = time.monotonic() + grace_s
        if self.states()[agent_id].phase is Phase.RUNNING:
            # To the script, which forwards it. A plain scancel would kill the agent after the cluster's KillWait.
            _ask(("scancel", "--quiet", "--batch", "--signal=TERM", agent_id))
            while self.states()[agent_id].phase is Phase.RUNNING and time.monotonic() < deadline:
                time.sleep(self._poll_s)
        if not self.states()[agent_id].has_ended:
            _ask(("scancel", "--quiet", agent_id))
            while not self.states()[agent_id].has_ended:
                time.sleep(self._poll_s)


def sbatch_words(pool: SlurmPool, command: AgentCommand, agents: int) -> tuple[str, ...]:
    """The sbatch command that submits an array of agents."""
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
    modules = "".join(f"module load {shlex.quote(name)} || exit\n" for name in pool.modules)
    if modules:  # on many clusters only login shells have it
        modules = f"type module >/dev/null 2>&1 || . /etc/profile\n{modules}"
    agent = shlex.join((*(pool.container or ()), *(pool.command or FERSWEEP), *command.words))
    return f"{_BEFORE}{modules}{_TRAPS}{agent} &\n{_AFTER}"


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
    """Run a Slurm command and return its output."""
    environment = agent_environment()
    # Inside another job, such as an interactive one, these describe that job and override what is requested.
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
            process_group=0,  # Ctrl-C in the terminal is for this process only
        )
    except FileNotFoundError:
        raise PoolError(
            f"{words[0]} is not installed", hint="run this on a host with Slurm, such as the login node"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PoolError(
            f"{words[0]} failed: {error}", hint="try again; `sinfo` shows the state of the cluster"
        ) from None
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise PoolError(f"{words[0]} failed: {reason}", hint="`sinfo` shows partitions, gres and limits")
    return done.stdout
