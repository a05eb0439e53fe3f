"""Agents as actors of a Ray cluster, or of a Ray of this host alone.

Ray places agents and reports lost nodes; it proposes no trials and stores none. A lost agent gets a new actor rather
than one of Ray's ``max_restarts``: Ray would restart it while its trials are still leased, count its restarts in all
rather than in a row, and keep its environment in Ray's own store.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_sweep.config.pool_file import RayPool
from fer_sweep.errors import FersweepError
from fer_sweep.host_processes import FERSWEEP, KILL
from fer_sweep.pools import AgentCommand, AgentState, Phase, agent_environment, agent_process, state_of_ended
from fer_sweep.pools.ray_connection import connect, import_ray, lacking, memory_bytes, wanted
from fer_sweep.sweeps import Remaining, known, open_entry

POLL_S = 0.5
"""Seconds between two polls of an agent that is being stopped."""
LOOK_S = 5.0
"""Least seconds between two queries of the remaining trials and of the cluster's nodes."""
SHORT_S = 60.0
"""An agent that is lost sooner than this had a short life."""
MOST_SHORT = 3
"""Short lives in a row after which an agent has failed."""
NO_TRIAL = AgentState(Phase.WAITING, "for a trial")
PASSED_ON = re.compile(r"FERSWEEP_|WANDB_|PG[A-Z]|HF_|NETRC$|PYTHONPATH$")
"""Names of the variables that agents get from the command's environment; the rest is that of Ray on their node."""


def useful(left: Remaining, *, running: int, most: int) -> int:
    """How many agents may wait for a place: no more than there are trials for.

    Args:
        left: The trials that have not ended.
        running: Agents that run; one that has just started has leased no trial yet.
        most: The answer for a sweep whose server does not say how many trials are left.
    """
    if left.free is None:
        return most
    return max(0, min(left.free, left.free + left.leased - running))


def remaining(sweep: str) -> Remaining | None:
    """The remaining trials of a sweep; None if they cannot be read now."""
    try:
        for entry in known():
            if entry.id == sweep:
                with open_entry(entry) as opened:
                    opened.end_waiting = lambda: True  # a database server that does not answer is asked again later
                    return opened.remaining()
    except FersweepError:
        return None  # asked again in a few seconds
    return Remaining(None)


@dataclass
class Seat:
    """One agent and its current actor."""

    id: str
    log: str
    state: AgentState = NO_TRIAL
    actor: Any = None
    """None before the agent is needed, while it is lost and once it has ended."""
    answer: Any = None
    """The pending call of the actor."""
    host: str = ""
    """Where the agent runs; empty while its actor waits for a place."""
    starts: int = 0
    since: float = 0.0
    """When its actor was made, then when the agent started, by the pool's clock."""
    short_lives: int = 0
    is_stopping: bool = False


class RayAgents:
    """Agents on one Ray."""

    outlives_us = False

    def __init__(
        self,
        pool: RayPool,
        *,
        ray: Any = None,
        left: Callable[[str], Remaining | None] = remaining,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start no agent yet; ``ray`` is the module, ``left`` gives the remaining trials of a sweep by its id."""
        self._pool = pool
        self._ray = ray
        self._left = left
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        """Guards the seats: several agents are stopped at the same time."""
        self._seats: dict[str, Seat] = {}
        self._look_at = 0.0
        self._lack = ""
        """Why no node can take an agent."""

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        """See ``Pool.start``: no more agents than there are trials run at the same time."""
        self._ray = self._ray or import_ray()
        connect(self._ray, self._pool)
        self._ray.cloudpickle.register_pickle_by_value(agent_process)
        self._actor_class = self._ray.remote(agent_process.AgentProcess).options(
            num_cpus=self._pool.cpus,
            num_gpus=self._pool.gpus,
            memory=memory_bytes(self._pool),
            resources=dict(self._pool.resources) or None,
            max_restarts=0,
            # SIGTERM to an agent whose actor ends, as ``agent_process`` arranges, instead of Ray's SIGKILL.
            runtime_env={"env_vars": {"RAY_kill_child_processes_on_worker_exit": "0"}},
        )
        self._node = self._ray.get_runtime_context().get_node_id()  # starts all actors
        self._command = command
        for agent_id in map(str, range(agents)):
            self._seats[agent_id] = Seat(agent_id, str(command.logs / f"ray-{os.getpid()}-{agent_id}.log"))
        self.states()
        return list(self._seats)

    def states(self) -> Mapping[str, AgentState]:
        """See ``Pool.states``."""
        with self._lock:
            if not self._have_ended():
                self._look()
            if self._have_ended():
                self._ray.shutdown()
            return {seat.id: self._shown(seat) for seat in self._seats.values()}

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        """See ``Pool.stop``."""
        seat = self._seats[agent_id]
        for number, seconds in ((signal.SIGTERM, grace_s), (KILL, LOOK_S)):
            with self._lock:
                seat.is_stopping = True
                if seat.host:
                    seat.actor.tell.remote(int(number))
                elif not seat.state.has_ended:
                    self._drop(seat, AgentState(Phase.DONE, "stopped before it started"))
            deadline = self._clock() + seconds
            while not self.states()[agent_id].has_ended and self._clock() < deadline:
                self._wait(POLL_S)
        with self._lock:
            if not seat.state.has_ended:
                self._drop(
                    seat, AgentState(Phase.DONE, f"killed by Ray, since its actor on {seat.host} did not respond")
                )

    def _have_ended(self) -> bool:
        return all(seat.state.has_ended for seat in self._seats.values())

    def _look(self) -> None:
        """Poll the agents, and every few seconds the sweep and the nodes."""
        for seat in self._seats.values():
            if seat.actor is not None:
                self._poll(seat)
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_S
        nodes = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        self._lack = lacking(self._pool, list(nodes.values()))
        if self._node in nodes:
            self._scale()
        else:  # Ray ends what this process has started, and starts nothing more for it
            note = "Ray on this host has ended; run the command again to resume the trials"
            self._drop_all(AgentState(Phase.FAILED, note))

    def _poll(self, seat: Seat) -> None:
        ray = self._ray
        if not ray.wait([seat.answer], timeout=0)[0]:
            return
        note = f"on {seat.host}, which does not respond"
        try:
            answer = ray.get(seat.answer)
        except ray.exceptions.RayTaskError as error:
            self._drop(seat, AgentState(Phase.FAILED, f"it cannot be started: {error.cause}"))
            return
        except ray.exceptions.RayError as error:
            if not (seat.host and isinstance(error, ray.exceptions.ActorUnavailableError)):
                self._lose(seat, str(error).splitlines()[0])
                return
        else:
            if seat.host and answer is not None:
                self._end(seat, answer)
                return
            if not seat.host:
                seat.host, seat.since = answer, self._clock()
            note = f"on {seat.host}, log {seat.log}"
        seat.state = AgentState(Phase.RUNNING, note)
        seat.answer = seat.actor.poll.remote()

    def _end(self, seat: Seat, code: int) -> None:
        self._look_at = 0.0
        state = state_of_ended(code, seat.log)
        was_killed = seat.is_stopping and state.phase is Phase.FAILED
        self._drop(seat, AgentState(Phase.DONE, "stopped") if was_killed else state)

    def _lose(self, seat: Seat, reason: str) -> None:
        """The agent's node is lost, or Ray has ended its actor."""
        self._look_at = 0.0
        is_short = self._clock() - seat.since < SHORT_S
        seat.short_lives = seat.short_lives + 1 if is_short else 0
        if seat.is_stopping:
            self._drop(seat, AgentState(Phase.DONE, "lost while it was stopping"))
        elif seat.short_lives >= MOST_SHORT:
            self._drop(
                seat, AgentState(Phase.FAILED, f"lost {MOST_SHORT} times in a row, the last time with: {reason}")
            )
        else:
            where = f" on {seat.host}" if seat.host else ""
            self._drop(seat, AgentState(Phase.WAITING, f"lost{where}; restarts as soon as trials are left for it"))

    def _scale(self) -> None:
        """Start agents that have a trial to train, and withdraw those that wait for a place without one."""
        left = self._left(self._command.sweep)
        if left is None:
            return
        seats = list(self._seats.values())
        waiting = [seat for seat in seats if seat.actor is not None and not seat.host]
        idle = [seat for seat in seats if seat.actor is None and not seat.state.has_ended]
        idle.sort(key=lambda seat: not seat.starts)  # lost agents first
        count = useful(left, running=sum(bool(seat.host) for seat in seats), most=len(seats))
        for seat in waiting[count:]:
            self._drop(seat, NO_TRIAL)
            seat.starts -= 1  # it has not run
        for seat in idle[: max(0, count - len(waiting))]:
            self._start(seat)
        awaits_leases = left.leased and any(seat.starts for seat in idle)  # those of a lost agent expire
        if not awaits_leases and all(seat.actor is None for seat in seats):
            self._drop_all(AgentState(Phase.DONE, "no trials left for it"))

    def _start(self, seat: Seat) -> None:
        seat.starts += 1
        seat.since = self._clock()
        environment = {"FERSWEEP_CORES": str(self._pool.cpus)}  # Ray counts cores, but does not enforce the count
        environment |= {name: value for name, value in agent_environment().items() if PASSED_ON.match(name)}
        if not self._pool.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        words = [*(self._pool.command or FERSWEEP), *self._command.words]
        title = f"agent {seat.id}, start {seat.starts}"
        seat.actor = self._actor_class.remote()
        # Arguments of a method go to the node alone; Ray's store keeps those of the actor and its runtime_env.
        seat.answer = seat.actor.start.remote(words, environment, str(Path.cwd()), seat.log, title)

    def _drop(self, seat: Seat, state: AgentState) -> None:
        """End the agent's actor."""
        if seat.actor is not None:
            self._ray.kill(seat.actor)
        seat.actor = seat.answer = None
        seat.host = ""
        seat.state = state

    def _drop_all(self, state: AgentState) -> None:
        for seat in self._seats.values():
            if not seat.state.has_ended:
                self._drop(seat, state)

    def _shown(self, seat: Seat) -> AgentState:
        if seat.actor is None or seat.host:
            return seat.state
        return AgentState(Phase.WAITING, self._lack or f"for {wanted(self._pool)}")
