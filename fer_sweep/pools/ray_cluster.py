"""Agents as actors of a Ray cluster, or of a Ray of this host alone.

Ray places agents and reports lost nodes; it proposes no trials and stores none. A process of its own, ``ray_driver``,
talks to Ray and asks the sweep how many trials are left.
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fer_sweep.config.pool_file import RayPool
from fer_sweep.errors import PoolError, cannot_write, printable
from fer_sweep.host_processes import FERSWEEP
from fer_sweep.pools import AgentCommand, AgentState, Phase, agent_environment
from fer_sweep.pools.ray_job import Job

ANSWER_S = 120.0
"""Timeout of the connection to Ray: a Ray of this host takes 5 s to start, and ten times that on busy cores."""
LATE_S = 30.0
"""Seconds after its grace period within which an agent's end must be reported."""
PASSED_ON = re.compile(r"FERSWEEP_|WANDB_|PG[A-Z]|HF_|NETRC$|PYTHONPATH$")
"""Names of the variables that agents get from the command's environment; the rest is that of Ray on their node."""
_UNITS = {unit: 1024**power for power, unit in enumerate("KMGT", 1)}
DRIVER = (sys.executable, "-c", "from fer_sweep.pools.ray_driver import main; main()")
"""The command of the process that talks to Ray."""


class RayAgents:
    """Agents on one Ray."""

    outlives_us = False

    def __init__(self, pool: RayPool, *, driver: Sequence[str] = DRIVER) -> None:
        self._pool = pool
        self._command = driver
        self._states: Mapping[str, AgentState] = {}
        self._news = threading.Condition()
        """Guards what follows and the states."""
        self._first: Mapping[str, Any] | None = None
        """The driver's first message: ready or refused."""
        self._has_ended = False

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """See ``Pool.start``: no more agents than there are trials run at the same time.

        Raises:
            PoolError: Ray is not installed, not reachable, or has no such resources.
            StorageError: The log folder cannot be written.
        """
        if importlib.util.find_spec("ray") is None:
            raise PoolError("Ray is not installed", hint="pip install 'fersweep[ray]', here and on all nodes")
        self._log = command.logs / f"ray-{os.getpid()}.log"
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._log.touch()
        except OSError as error:
            raise cannot_write(self._log, error) from error
        job = _job(self._pool, command, [str(number) for number in range(agents)])
        self._states = dict.fromkeys(job.logs, AgentState(Phase.WAITING))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=agent_environment(),
                process_group=0,  # a terminal's Ctrl-C is handled by this process
            )
        threading.Thread(target=self._listen, daemon=True, name="ray-driver").start()
        self._tell(asdict(job))
        with self._news:
            self._news.wait_for(lambda: self._first is not None or self._has_ended, ANSWER_S)
        first = self._first or {
            "refused": f"Ray does not respond: {self._last_line()}",
            "hint": "`ray status` shows it",
        }
        if "refused" in first:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            raise PoolError(first["refused"], hint=first["hint"])
        return list(job.logs)

    def states(self) -> Mapping[str, AgentState]:
        """See ``Pool.states``."""
        with self._news:
            return self._states

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """See ``Pool.stop``.

        Raises:
            PoolError: The driver does not report the agent's end.
        """
        self._tell({"stop": agent_id, "grace_s": grace_s})
        with self._news:
            if not self._news.wait_for(lambda: self._states[agent_id].has_ended, grace_s + LATE_S):
                raise PoolError(f"timeout: agent {agent_id} has not ended", hint="`ray status` shows the nodes")

    def _tell(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._news, contextlib.suppress(OSError, ValueError):  # it has ended, which the listener reports
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None and self._process.stdin is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote
            news = json.loads(line)
            with self._news:
                if "states" in news:
                    self._states = {
                        agent_id: AgentState(Phase(phase), note) for agent_id, (phase, note) in news["states"].items()
                    }
                else:
                    self._first = news
                self._news.notify_all()
        self._process.stdout.close()
        code = self._process.wait()
        with self._news:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            reason = f": {self._last_line()}" if code >= 0 else ""  # a killed process prints nothing
            lost = AgentState(Phase.FAILED, f"the Ray driver ended with code {code}{reason}")
            self._states = {agent_id: state if state.has_ended else lost for agent_id, state in self._states.items()}
            self._has_ended = True
            self._news.notify_all()

    def _last_line(self) -> str:
        """The last line that the driver, or Ray in it, printed for people."""
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines()]
        said = [line for line in lines if line and "logging.cc:" not in line]  # a stack trace of Ray's core
        return printable(said[-1])[:300] if said else "it printed nothing"


def _job(pool: RayPool, command: AgentCommand, ids: Sequence[str]) -> Job:
    granted = {"FERSWEEP_CORES": str(pool.cpus)}  # Ray counts cores, but does not enforce the count
    return Job(
        sweep=command.sweep,
        words=(*(pool.command or FERSWEEP), *command.words),
        environment=granted | {name: value for name, value in agent_environment().items() if PASSED_ON.match(name)},
        folder=str(Path.cwd()),
        logs={agent_id: str(command.logs / f"ray-{os.getpid()}-{agent_id}.log") for agent_id in ids},
        address=pool.address,
        gpus=pool.gpus,
        cpus=pool.cpus,
        memory=int(pool.memory[:-1]) * _UNITS[pool.memory[-1]] if pool.memory else None,
        resources=pool.resources,
    )
