"""The process that talks to Ray: ``RayAgents`` starts it, sends it orders and receives the agents' states.

Ray ends a process that loses its cluster, handles SIGTERM in it and prints to its streams, none of which may happen to
the command itself. Orders are lines of JSON on stdin, states are lines of JSON on stdout. When stdin closes, the
command has ended, however that came about, and the agents are stopped.

A lost agent gets a new actor rather than one of Ray's ``max_restarts``: Ray would restart it while its trials are still
leased, count its restarts in all rather than in a row, and keep its environment in Ray's own store.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from fer_sweep.errors import FersweepError, PoolError
from fer_sweep.pools import DONE_CODES, STOPPED_CODES, AgentState, Phase
from fer_sweep.pools.ray_connection import connect
from fer_sweep.pools.ray_job import Job, lacking
from fer_sweep.sweeps import Remaining, known, open_entry

POLL_S = 0.5
"""Seconds between two polls of the agents."""
LOOK_S = 5.0
"""Seconds between two queries of the remaining trials and of the cluster's nodes."""
GRACE_S = 60.0
"""Seconds that agents have for checkpoints once the command has ended."""
SHORT_S = 60.0
"""An agent that is lost sooner than this had a short life."""
MOST_SHORT = 3
"""Short lives in a row after which an agent has failed."""
NO_TRIAL = AgentState(Phase.WAITING, "for a trial")

Order = dict[str, Any] | None
"""``{"stop": AGENT, "grace_s": SECONDS}``, or None once the command has ended."""


@dataclass
class Seat:
    """One agent and its current actor."""

    id: str
    state: AgentState = NO_TRIAL
    actor: Any = None
    """None before the agent is needed, while it is lost and once it has ended."""
    answer: Any = None
    """The pending call of the actor."""
    host: str = ""
    """Where the agent runs; empty while its actor waits for a place."""
    starts: int = 0
    since: float = 0.0
    """When its actor was made, then when the agent started, by the driver's clock."""
    short_lives: int = 0
    kill_at: float | None = None
    """Set once the agent was told to stop: when to kill it, by the driver's clock."""
    is_killed: bool = False


class Driver:
    """The agents of one job, from start to end."""

    def __init__(
        self,
        job: Job,
        ray: Any,
        tell: Callable[..., None],
        left: Callable[[], Remaining | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start no agent yet.

        Args:
            job: What the agents run and need.
            ray: The module, connected to a cluster.
            tell: Receives the agents' states at each change.
            left: Returns the remaining trials; None if the database does not respond.
            clock: Monotonic seconds.
        """
        self._job = job
        self._ray = ray
        self._tell = tell
        self._left = left
        self._clock = clock
        self._told: Mapping[str, AgentState] = {}
        self._seats = [Seat(agent_id) for agent_id in job.logs]
        self._look_at = 0.0
        self._lack = ""
        """Why no node can take an agent."""
        self._actor_class = _actor_class(ray, job)
        self._node = ray.get_runtime_context().get_node_id()
        """The node of this process, through which it starts all actors."""

    def look(self) -> bool:
        """Poll the agents, and every few seconds the sweep and the nodes; returns whether all agents have ended."""
        for seat in self._seats:
            if seat.actor is not None:
                self._poll(seat)
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_S
            nodes = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
            self._lack = lacking(self._job, list(nodes.values()))
            if self._node in nodes:
                self._scale()
            else:  # Ray ends what this process has started, and starts nothing more for it
                self._drop_all(Phase.FAILED, "Ray on this host has ended; run the command again to resume the trials")
        states = {seat.id: self._shown(seat) for seat in self._seats}
        if states != self._told:
            self._tell(states={agent_id: [state.phase, state.note] for agent_id, state in states.items()})
            self._told = states
        return all(state.has_ended for state in states.values())

    def obey(self, order: Order) -> None:
        """Stop one agent, or all of them where the command has ended."""
        for seat in self._seats:
            if order is None or order["stop"] == seat.id:
                self._stop(seat, GRACE_S if order is None else order["grace_s"])

    def _stop(self, seat: Seat, grace_s: float) -> None:
        if seat.state.has_ended or seat.kill_at is not None:
            return
        if seat.host:
            seat.kill_at = self._clock() + grace_s
            seat.actor.tell.remote(int(signal.SIGTERM))
        else:
            self._drop(seat, Phase.DONE, "stopped before it started")

    def _poll(self, seat: Seat) -> None:
        if seat.kill_at is not None and self._clock() > seat.kill_at:
            if seat.is_killed:
                self._drop(seat, Phase.DONE, f"killed by Ray, since its actor on {seat.host} did not respond")
                return
            seat.is_killed, seat.kill_at = True, self._clock() + LOOK_S
            seat.actor.tell.remote(int(signal.SIGKILL))
        ray = self._ray
        if not ray.wait([seat.answer], timeout=0)[0]:
            return
        note = f"on {seat.host}, which does not respond"
        try:
            answer = ray.get(seat.answer)
        except ray.exceptions.RayTaskError as error:
            self._drop(seat, Phase.FAILED, f"it cannot be started: {error.cause}")
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
            note = f"on {seat.host}, log {self._job.logs[seat.id]}"
        seat.state = AgentState(Phase.RUNNING, note)
        seat.answer = seat.actor.poll.remote()

    def _end(self, seat: Seat, code: int) -> None:
        self._look_at = 0.0
        if code in DONE_CODES:
            self._drop(seat, Phase.DONE)
        elif code in STOPPED_CODES or seat.kill_at is not None:
            self._drop(seat, Phase.DONE, "stopped")
        else:
            self._drop(seat, Phase.FAILED, f"exit code {code}: see {self._job.logs[seat.id]}")

    def _lose(self, seat: Seat, reason: str) -> None:
        """The agent's node is lost, or Ray has ended its actor."""
        self._look_at = 0.0
        is_short = self._clock() - seat.since < SHORT_S
        seat.short_lives = seat.short_lives + 1 if is_short else 0
        if seat.kill_at is not None:
            self._drop(seat, Phase.DONE, "lost while it was stopping")
        elif seat.short_lives >= MOST_SHORT:
            self._drop(seat, Phase.FAILED, f"lost {MOST_SHORT} times in a row, the last time with: {reason}")
        else:
            where = f" on {seat.host}" if seat.host else ""
            self._drop(seat, Phase.WAITING, f"lost{where}; restarts as soon as trials are left for it")

    def _scale(self) -> None:
        """Start agents that have a trial to train, and withdraw those that wait for a place without one."""
        left = self._left()
        if left is None:
            return
        waiting = [seat for seat in self._seats if seat.actor is not None and not seat.host]
        idle = [seat for seat in self._seats if seat.actor is None and not seat.state.has_ended]
        idle.sort(key=lambda seat: not seat.starts)  # lost agents first
        wanted = useful(left, running=sum(bool(seat.host) for seat in self._seats), most=len(self._seats))
        for seat in waiting[wanted:]:
            self._drop(seat, NO_TRIAL.phase, NO_TRIAL.note)
            seat.starts -= 1  # it has not run
        for seat in idle[: max(0, wanted - len(waiting))]:
            self._start(seat)
        awaits_leases = left.leased and any(seat.starts for seat in idle)  # those of a lost agent expire
        if not awaits_leases and all(seat.actor is None for seat in self._seats):
            self._drop_all(Phase.DONE, "no trials left for it")

    def _start(self, seat: Seat) -> None:
        seat.starts += 1
        seat.since = self._clock()
        seat.actor = self._actor_class.remote()
        environment, log = dict(self._job.environment), self._job.logs[seat.id]
        title = f"agent {seat.id}, start {seat.starts}"
        # Arguments of a method go to the node alone; Ray's store keeps those of the actor and its runtime_env.
        seat.answer = seat.actor.start.remote(
            list(self._job.words), environment, self._job.gpus > 0, self._job.folder, log, title
        )

    def _drop(self, seat: Seat, phase: Phase, note: str = "") -> None:
        """End the agent's actor."""
        if seat.actor is not None:
            self._ray.kill(seat.actor)
        seat.actor = seat.answer = None
        seat.host = ""
        seat.state = AgentState(phase, note)

    def _drop_all(self, phase: Phase, note: str) -> None:
        for seat in self._seats:
            if not seat.state.has_ended:
                self._drop(seat, phase, note)

    def _shown(self, seat: Seat) -> AgentState:
        if seat.actor is None or seat.host:
            return seat.state
        return AgentState(Phase.WAITING, self._lack or f"for {self._job.wants()}")


def useful(left: Remaining, *, running: int, most: int) -> int:
    """How many agents may wait for a place: no more than there are trials for.

    >>> useful(Remaining(free=2, leased=3), running=4, most=8)
    1

    Args:
        left: The trials that have not ended.
        running: Agents that run; one that has just started has leased no trial yet.
        most: The answer for a sweep whose server does not say how many trials are left.
    """
    if left.free is None:
        return most
    return max(0, min(left.free, left.free + left.leased - running))


def left_of(sweep: str) -> Callable[[], Remaining | None]:
    """What returns the remaining trials of a sweep."""
    entry = next((entry for entry in known() if entry.id == sweep), None)

    def left() -> Remaining | None:
        if entry is None:
            return Remaining(None)
        try:
            with open_entry(entry) as opened:
                opened.end_waiting = lambda: True  # fail at once if the database server does not answer
                return opened.remaining()
        except FersweepError as error:
            print(f"cannot read the remaining trials: {error}", file=sys.stderr)
            return None

    return left


def _actor_class(ray: Any, job: Job) -> Any:
    from fer_sweep.pools import ray_agent

    ray.cloudpickle.register_pickle_by_value(ray_agent)
    return ray.remote(ray_agent.AgentActor).options(
        num_cpus=job.cpus,
        num_gpus=job.gpus,
        memory=job.memory,
        resources=dict(job.resources) or None,
        max_restarts=0,
    )


def main() -> None:
    """Serve the job on stdin."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints to stdout too
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    serve(ray, out)


def serve(ray: Any, out: TextIO, *, poll_s: float = POLL_S) -> None:
    """Serve the job in the first line of stdin; write states to ``out``."""

    def tell(**news: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(news), file=out, flush=True)

    job = Job(**json.loads(sys.stdin.readline()))
    orders: queue.Queue[Order] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, orders), daemon=True).start()
    try:
        connect(ray, job)
    except PoolError as error:
        tell(refused=str(error), hint=error.hint)
        return
    tell(ready=True)
    driver = Driver(job, ray, tell, left_of(job.sweep))
    while not driver.look():
        with contextlib.suppress(queue.Empty):
            driver.obey(orders.get(timeout=poll_s))
    ray.shutdown()


def _read(lines: TextIO, orders: "queue.Queue[Order]") -> None:
    for line in lines:
        orders.put(json.loads(line))
    orders.put(None)
