"""Agents as actors of a Ray cluster, or of a Ray of this host alone.

Ray places them and says when their node is lost; it proposes no trial and keeps none. How many are of use is asked of
the sweep itself: trials that are left are a reason to start agents again, and those that wait for a place that is no
longer of use give up the wait. Ray itself is spoken to by a process of its own, ``ray_driver``.
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
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
"""A Ray of this host alone takes some five seconds to start, and ten times that where all cores are busy; one that is
out of reach does not say so."""
LATE_S = 30.0
"""So long after the grace an agent has ended, or nothing is known of it."""
LAST_WORDS_S = 1.0
PASSED_ON = re.compile(r"FERSWEEP_|WANDB_|PG[A-Z]|HF_|NETRC$|PYTHONPATH$")
"""Names of the variables that agents get from the command's environment; the rest is that of Ray on their node."""
_UNITS = {unit: 1024**power for power, unit in enumerate("KMGT", 1)}
DRIVER = (sys.executable, "-c", "from fer_sweep.pools.ray_driver import main; main()")
"""The command of the process that speaks to Ray."""


class RayAgents:
    """Agents on one Ray."""

    outlives_us = False

    def __init__(self, pool: RayPool, *, driver: Sequence[str] = DRIVER) -> None:
        self._pool = pool
        self._driver = driver
        self._drivers: dict[str, _Driver] = {}
        """By agent."""

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """See ``Pool.start``: as many as are of use, and the others when they are.

        Raises:
            PoolError: Ray is not installed, out of reach, or has no such places.
            StorageError: The folder of the logs cannot be written.
        """
        if importlib.util.find_spec("ray") is None:
            raise PoolError("Ray is not installed here", hint="pip install 'fersweep[ray]', as on all its nodes")
        try:
            command.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(command.logs, error) from error
        first = len(self._drivers)
        ids = [str(number) for number in range(first, first + agents)]
        driver = _Driver(self._driver, _job(self._pool, command, ids))
        self._drivers |= dict.fromkeys(ids, driver)
        return ids

    def states(self) -> Mapping[str, AgentState]:
        """See ``Pool.states``."""
        return {agent_id: driver.states()[agent_id] for agent_id, driver in self._drivers.items()}

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """See ``Pool.stop``.

        Raises:
            PoolError: Ray says nothing of its end.
        """
        self._drivers[agent_id].stop(agent_id, grace_s)


class _Driver:
    """The process that speaks to Ray for some agents."""

    def __init__(self, command: Sequence[str], job: Job) -> None:
        """Start it, and return once it is in touch with Ray.

        Raises:
            PoolError: It is not.
        """
        self._states = dict.fromkeys(job.logs, AgentState(Phase.WAITING))
        self._news = threading.Condition()
        self._first: Mapping[str, Any] | None = None
        self._has_ended = False
        self._said: deque[str] = deque(maxlen=1)
        """The last line that it, or Ray in it, printed for people."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=agent_environment(),
            process_group=0,  # a terminal's Ctrl-C is ours to pass on
        )
        threading.Thread(target=self._listen, daemon=True, name="ray-driver").start()
        self._tell(asdict(job))
        with self._news:
            self._news.wait_for(lambda: self._first is not None or self._has_ended, ANSWER_S)
        first: Mapping[str, Any] | None = self._first
        if first is None or "refused" in first:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            if first is None:
                where = f"at {job.address}" if job.address else "of this host"
                raise PoolError(
                    f"the Ray {where} does not answer: {self._last_words()}", hint="`ray status` shows how a cluster is"
                )
            raise PoolError(first["refused"], hint=first["hint"])

    def states(self) -> Mapping[str, AgentState]:
        """What is known of its agents."""
        with self._news:
            return dict(self._states)

    def stop(self, agent_id: str, grace_s: float) -> None:
        """See ``Pool.stop``."""
        self._tell({"stop": agent_id, "grace_s": grace_s})
        with self._news:
            if not self._news.wait_for(lambda: self._states[agent_id].has_ended, grace_s + LATE_S):
                raise PoolError(f"nothing is known of the end of agent {agent_id}", hint="`ray status` shows the nodes")

    def _tell(self, order: Mapping[str, Any]) -> None:
        with self._news, contextlib.suppress(OSError):  # it is at its end, which the listener sees
            if self._has_ended:
                return
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None and self._process.stdin is not None
        hears = threading.Thread(target=self._keep_last, daemon=True, name="ray-driver-stderr")
        hears.start()
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # it was killed in the middle
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
        hears.join(LAST_WORDS_S)  # what it started may hold on to its stderr
        with self._news:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            why = f": {self._last_words()}" if code >= 0 else ""  # of a kill it knows nothing
            lost = AgentState(Phase.FAILED, f"what speaks to Ray ended with code {code}{why}")
            self._states = {agent_id: state if state.has_ended else lost for agent_id, state in self._states.items()}
            self._has_ended = True
            self._news.notify_all()

    def _last_words(self) -> str:
        return " ".join(self._said) or "it said nothing"

    def _keep_last(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                text = line.decode(errors="replace").strip()
                if text and "logging.cc:" not in text:  # a stack of Ray's
                    self._said.append(printable(text)[:300])


def _job(pool: RayPool, command: AgentCommand, ids: Sequence[str]) -> Job:
    granted = {"FERSWEEP_CORES": str(pool.cpus)}  # Ray counts cores, and holds nobody to them
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
