"""What speaks to Ray, as a process of its own: ``RayAgents`` starts one, tells it what to do, and is told the states.

Ray ends the process that loses its cluster, handles SIGTERM there, and prints where it likes; none of which may happen
to a command. Orders come as lines of JSON on stdin, news go as such on stdout. With stdin's end, which is that of the
command however it came about, agents are told to end.
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
from typing import Any, TextIO

from fer_sweep.errors import FersweepError
from fer_sweep.pools import DONE_CODES, STOPPED_CODES, AgentState, Phase
from fer_sweep.pools.ray_connection import Refusal, connect
from fer_sweep.pools.ray_job import Job, lacking
from fer_sweep.pools.scaling import Demand, slots_of
from fer_sweep.sweeps import Remaining, known, open_entry

POLL_S = 0.5
"""Between looks at the agents."""
LOOK_S = 5.0
"""Between looks at how many trials are left, and at what nodes there are."""
GRACE_S = 60.0
"""How long agents may take to write checkpoints once the command is gone."""
SHORT_S = 60.0
"""An agent that Ray loses sooner than this has come to nothing."""
MOST_SHORT = 3
"""So many times in a row, and it is not started again."""

Order = dict[str, Any] | None
"""``{"stop": AGENT, "grace_s": SECONDS}``, or None where no more will come, since the command has ended."""


class Seat:
    """One agent: where it is, and how often it has been."""

    def __init__(self, number: str) -> None:
        self.id = number
        self.state = AgentState(Phase.WAITING, "until a trial is left for it")
        self.actor: Any = None
        """Its actor while it has one, placed or not."""
        self.answer: Any = None
        """Of the call under way."""
        self.is_running = False
        self.where = ""
        self.starts = 0
        self.since = 0.0
        """When it began to wait for its place, then when it got it, by the monotonic clock."""
        self.short_lives = 0
        self.is_told = False
        """To end."""
        self.kill_at: float | None = None
        """When it is killed unless it has ended, by the monotonic clock."""
        self.is_killed = False
        self.may_start = True


class Driver:
    """The agents of one job, from the first to the last."""

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
            job: What the agents are to do.
            ray: The module, connected to a cluster.
            tell: Gets the agents' states at each change.
            left: Tells what is left of the sweep; None if there is no answer for now.
            clock: Seconds that never go back.
        """
        self._job = job
        self._ray = ray
        self._tell = tell
        self._left = left
        self._clock = clock
        self._told: Mapping[str, AgentState] = {}
        self._seats = {number: Seat(number) for number in job.logs}
        slots = slots_of(job.words, job.gpus, job.cpus)
        self._demand = Demand(most=len(self._seats), slots=slots)
        self._look_at = 0.0
        self._has_lost = False
        """Whether an agent was lost, whose trials are in hand until their lease has run out."""
        self._is_ending = False
        self._lack = ""
        """Why no node can ever have an agent."""
        self._actor_class = _actor_class(ray, job)
        self._node = ray.get_runtime_context().get_node_id()
        """Which this process is on, and through which it starts all actors."""

    def look(self) -> bool:
        """Look at the agents, and every few seconds at what is left; returns whether all agents have ended."""
        for seat in self._seats.values():
            self._see(seat)
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_S
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._lack = lacking(self._job, [node["Resources"] for node in nodes])
            if self._node in {node["NodeID"] for node in nodes}:
                self._scale()
            else:
                self._give_up()
        states = {seat.id: self._shown(seat) for seat in self._seats.values()}
        if states != self._told:
            self._tell(states={number: [state.phase, state.note] for number, state in states.items()})
            self._told = states
        return all(state.has_ended for state in states.values())

    def obey(self, order: Order) -> None:
        """Do what the command asks for."""
        if order is None:
            self._is_ending = True
            for seat in self._seats.values():
                self._end(seat, GRACE_S)
        else:
            self._end(self._seats[order["stop"]], order["grace_s"])

    def _end(self, seat: Seat, grace_s: float) -> None:
        self._see(seat)  # it may have got its place since the last look, and Ray would end it without a checkpoint
        seat.may_start = False
        if not seat.is_running:
            if not seat.state.has_ended:
                self._drop(seat, Phase.DONE, "stopped before it had a place")
        elif not seat.is_told:
            seat.is_told, seat.kill_at = True, self._clock() + grace_s
            seat.actor.tell.remote(int(signal.SIGTERM))

    def _see(self, seat: Seat) -> None:
        """Take in what has become of an agent."""
        if seat.actor is None:
            return
        if seat.kill_at is not None and self._clock() > seat.kill_at:
            if seat.is_killed:
                self._drop(seat, Phase.DONE, f"stopped by Ray, since its actor on {seat.where} did not answer")
                return
            seat.is_killed, seat.kill_at = True, self._clock() + LOOK_S
            seat.actor.tell.remote(int(signal.SIGKILL))
        ray = self._ray
        ready, _ = ray.wait([seat.answer], timeout=0)
        if not ready:
            return
        try:
            answer = ray.get(seat.answer)
        except ray.exceptions.ActorUnavailableError:
            if not seat.is_running:  # nobody knows whether it was started
                self._lose(seat, "the node does not answer")
                return
            seat.state = AgentState(Phase.RUNNING, f"on {seat.where}, which does not answer for now")
        except ray.exceptions.RayTaskError as error:
            self._drop(seat, Phase.FAILED, f"it cannot be started: {error.cause}")
            return
        except ray.exceptions.RayError as error:
            self._lose(seat, str(error).splitlines()[0])
            return
        else:
            if seat.is_running and answer is not None:
                self._has_ended(seat, answer)
                return
            if not seat.is_running:
                seat.is_running, seat.where, seat.since = True, answer, self._clock()
            seat.state = AgentState(Phase.RUNNING, f"on {seat.where}, log {self._job.logs[seat.id]}")
        seat.answer = seat.actor.poll.remote()

    def _has_ended(self, seat: Seat, code: int) -> None:
        self._look_at = 0.0
        if code in DONE_CODES:
            self._drop(seat, Phase.DONE)
            self._demand.ended()
        elif code in STOPPED_CODES or seat.is_told:
            self._drop(seat, Phase.DONE, "stopped")
            seat.may_start = False  # whoever did it on the node meant it
        else:
            self._drop(seat, Phase.FAILED, f"exit code {code}: see {self._job.logs[seat.id]}")

    def _lose(self, seat: Seat, why: str) -> None:
        """Its node is gone, or Ray ended its actor."""
        self._look_at = 0.0
        if seat.is_told:
            self._drop(seat, Phase.DONE, "stopped, and lost meanwhile")
            return
        is_short = self._clock() - seat.since < SHORT_S
        seat.short_lives = seat.short_lives + 1 if is_short else 0
        if seat.short_lives >= MOST_SHORT:
            self._drop(seat, Phase.FAILED, f"Ray lost it {MOST_SHORT} times in a row, the last time so: {why}")
            return
        where = f" on {seat.where}" if seat.is_running else ""
        self._has_lost = True
        self._demand.lost()
        self._drop(seat, Phase.WAITING, f"lost{where}; it is started again for the trials that are left")

    def _start(self, seat: Seat) -> None:
        seat.starts += 1
        seat.since = self._clock()
        seat.actor = self._actor_class.remote()
        environment, log = dict(self._job.environment), self._job.logs[seat.id]
        # An argument of a method goes to the node alone; one of the actor, or its runtime_env, Ray's own store keeps.
        seat.answer = seat.actor.start.remote(
            list(self._job.words),
            environment,
            self._job.gpus > 0,
            self._job.folder,
            log,
            f"agent {seat.id}, start {seat.starts}",
        )
        seat.state = AgentState(Phase.WAITING, "")

    def _scale(self) -> None:
        """Start agents that are of use, and give up those that are not and have no place yet."""
        seats = self._seats.values()
        running = [seat for seat in seats if seat.is_running]
        waiting = [seat for seat in seats if seat.actor is not None and not seat.is_running]
        idle = [
            seat for seat in seats if seat.actor is None and seat.may_start and seat.state.phase is not Phase.FAILED
        ]
        left = None if self._is_ending else self._left()
        if left is None:
            return
        change = self._demand.look(left, running=len(running), waiting=len(waiting))
        # Those that were lost first, then those never started; one that has ended, last.
        idle.sort(key=lambda seat: (seat.state.has_ended, not seat.starts))
        if left.free is None:  # where nobody knows what is left, an agent's end is all there is to go by
            idle = [seat for seat in idle if not seat.state.has_ended]
        started = idle[: change.start]
        for seat in started:
            self._start(seat)
        for seat in waiting[len(waiting) - change.withdraw :]:
            self._drop(seat, Phase.WAITING, "until a trial is left for it")
        remain = len(running) + len(waiting) - change.withdraw + len(started)
        if not remain and not (self._has_lost and left.leased):
            for seat in seats:
                if not seat.state.has_ended:
                    self._drop(seat, Phase.DONE, "there was nothing left for it to do")

    def _give_up(self) -> None:
        """The node of this process is lost to Ray, which ends what it has started and starts nothing more for it."""
        for seat in self._seats.values():
            if not seat.state.has_ended:
                self._drop(seat, Phase.FAILED, "the Ray of this host has ended; trials go on from their checkpoints")

    def _drop(self, seat: Seat, phase: Phase, note: str = "") -> None:
        """It has no actor any more."""
        if seat.actor is not None:
            self._ray.kill(seat.actor)
        seat.actor = seat.answer = seat.kill_at = None
        seat.is_running = False
        seat.state = AgentState(phase, note)

    def _shown(self, seat: Seat) -> AgentState:
        if seat.actor is None or seat.is_running:
            return seat.state
        return AgentState(Phase.WAITING, self._lack or f"for {self._job.wants()}")


def left_of(sweep: str) -> Callable[[], Remaining | None]:
    """What tells how much of a sweep is left."""
    entry = next((entry for entry in known() if entry.id == sweep), None)

    def left() -> Remaining | None:
        if entry is None:
            return Remaining(None)
        try:
            with open_entry(entry, waits=False) as opened:
                return opened.remaining()
        except FersweepError as error:
            print(f"what is left cannot be told: {error}", file=sys.stderr)
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
        max_restarts=0,  # whether another agent is of use is decided here
    )


def main() -> None:
    """Serve one job."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no news of ours
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    serve(ray, out)


def serve(ray: Any, out: TextIO, *, poll_s: float = POLL_S) -> None:
    """Serve the job that the first line on stdin describes; news go to ``out``."""

    def tell(**news: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(news), file=out, flush=True)

    job = Job(**json.loads(sys.stdin.readline()))
    orders: queue.Queue[Order] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, orders), daemon=True).start()
    try:
        connect(ray, job)
    except Refusal as refusal:
        tell(refused=str(refusal), hint=refusal.hint)
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
