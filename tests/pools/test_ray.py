"""Agents on Ray: the driver on a scripted Ray, the actor on a node, and the errors."""

import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fer_sweep.config.pool_file import RayPool
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentState, Phase
from fer_sweep.pools.ray_agent import AgentActor
from fer_sweep.pools.ray_cluster import RayAgents
from fer_sweep.pools.ray_connection import connect
from fer_sweep.pools.ray_driver import GRACE_S, LOOK_S, SHORT_S, Driver, Order, left_of, useful
from fer_sweep.pools.ray_job import Job
from fer_sweep.sweeps import Remaining
from tests.support.pool_stage import STUB, stub
from tests.support.processes import until
from tests.support.scripted_ray import Actor, ActorUnavailableError, RayError, ScriptedRay
from tests.support.stub_agent import calls

TERM, KILL = signal.SIGTERM, signal.SIGKILL
JOB = Job("abc", ("agent", "abc"), {"PGPASSWORD": "secret"}, "", {"0": "0.log"}, "auto", 1, 2, None, {})
STOP = {"stop": "0", "grace_s": GRACE_S}
RUNNING, DONE = AgentState(Phase.RUNNING, "on n1, log 0.log"), AgentState(Phase.DONE)
LOST = RayError("The actor died.\nIts node was lost.")


class Agent:
    """What an actor runs."""

    code: int | None = None

    def __init__(self) -> None:
        self.told: list[int] = []

    def start(self, *arguments: object) -> str:
        self.arguments = arguments
        return "n1"

    def poll(self) -> int | None:
        return self.code

    def tell(self, number: int) -> None:
        self.told.append(number)


class Stage:
    """A driver of scripted agents, with a clock."""

    def __init__(self, agents: int = 1, *, free: int | None = None, has_room: bool = True) -> None:
        self.ray = ScriptedRay(Agent, has_room)
        self.left = Remaining(free)
        """Of the sweep."""
        self._now = 0.0
        self._news: dict[str, Any] = {}
        job = replace(JOB, logs={str(number): f"{number}.log" for number in range(agents)})
        self.driver = Driver(job, self.ray, self._news.update, lambda: self.left, clock=lambda: self._now)
        self.look()

    def look(self, after_s: float = LOOK_S) -> AgentState:
        """Let the driver see what has changed; returns the first agent's state."""
        self._now += after_s
        for _ in range(2):  # an agent that is started at the first look is seen to run at the second
            self.ended = self.driver.look()
        return self.states[0]

    @property
    def states(self) -> list[AgentState]:
        return [AgentState(Phase(phase), note) for phase, note in self._news["states"].values()]

    @property
    def actor(self) -> Actor:
        """The latest."""
        return self.ray.actors[-1]


def test_no_more_agents_are_started_than_there_are_trials_and_ray_stores_no_secret() -> None:
    stage = Stage(agents=4, free=1)
    assert [state.phase for state in stage.states] == [Phase.RUNNING] + [Phase.WAITING] * 3
    assert stage.actor.object.arguments[1] == {"PGPASSWORD": "secret"}
    assert "secret" not in str(stage.ray.options)
    stage.left = Remaining(0, leased=1)
    assert stage.look() == RUNNING
    stage.actor.object.code, stage.left = 0, Remaining(0)
    assert stage.look() == DONE and stage.ended
    assert stage.states[3] == AgentState(Phase.DONE, "no trials left for it")
    assert len(stage.ray.actors) == 1


@pytest.mark.parametrize(
    ("left", "running", "count"),
    [
        (Remaining(10), 0, 10),
        (Remaining(None), 3, 8),
        (Remaining(4, leased=4), 4, 4),
        (Remaining(0, leased=4), 1, 0),  # a lost node's trials are no reason before their leases have expired
        (Remaining(2, leased=2), 1, 2),
        (Remaining(2), 2, 0),  # agents that have just started have leased nothing yet
    ],
)
def test_agents_wait_for_a_place_only_while_there_are_trials_for_them(
    left: Remaining, running: int, count: int
) -> None:
    assert useful(left, running=running, most=8) == count


@pytest.mark.parametrize("has_room", [True, False])
def test_lost_agent_is_started_again_once_its_trials_are_free(has_room: bool) -> None:
    stage = Stage(free=1, has_room=has_room)
    where = " on n1" if has_room else ""
    stage.actor.error, stage.left = LOST, Remaining(0, leased=1)  # until the lease of the lost agent has expired
    lost = AgentState(Phase.WAITING, f"lost{where}; restarts as soon as trials are left for it")
    assert (stage.look(), stage.ended) == (lost, False)
    stage.ray.has_room, stage.left = True, Remaining(1)
    assert stage.look() == RUNNING
    assert stage.actor.object.arguments[-1] == "agent 0, start 2"


def test_agent_that_is_lost_three_times_in_a_row_soon_after_its_start_has_failed() -> None:
    stage = Stage()
    for lived_s in (1, 1, SHORT_S * 2, 1, 1, 1):
        assert stage.look(lived_s) == RUNNING
        stage.actor.error = LOST
        state = stage.look(0)
    assert state == AgentState(Phase.FAILED, "lost 3 times in a row, the last time with: The actor died.")


@pytest.mark.parametrize("free", [10, None])
def test_exit_code_says_how_an_agent_ended_and_it_is_not_started_again(free: int | None) -> None:
    failed = AgentState(Phase.FAILED, "exit code 1: see 0.log")
    for code, state in ((3, DONE), (130, AgentState(Phase.DONE, "stopped")), (1, failed)):
        stage = Stage(free=free)
        stage.actor.object.code = code
        assert (stage.look(), stage.ended) == (state, True)


def test_waiting_agent_names_what_no_node_has_and_ends_without_trials_or_if_stopped() -> None:
    stage = Stage(has_room=False)
    assert stage.look() == AgentState(Phase.WAITING, "for 2 CPUs, 1 GPU")
    stage.ray.resources = {"CPU": 8.0}
    note = "no node has 2 CPUs, 1 GPU; the maximum on a node is 8 CPUs, 0 GPUs"
    assert stage.look() == AgentState(Phase.WAITING, note)
    stage.left = Remaining(0)
    assert stage.look() == AgentState(Phase.DONE, "no trials left for it")
    stage = Stage(has_room=False)
    stage.driver.obey(STOP)
    assert stage.look() == AgentState(Phase.DONE, "stopped before it started")


@pytest.mark.parametrize("order", [STOP, None])  # the command's own end is no order at all
def test_stopped_agent_is_killed_after_its_grace_and_dropped_where_its_actor_does_not_respond(order: Order) -> None:
    stage = Stage()
    stage.driver.obey(order)
    assert stage.look(GRACE_S - 1) == RUNNING
    assert stage.actor.object.told == [TERM]
    stage.look(2)
    assert stage.actor.object.told == [TERM, KILL]
    stage.actor.answers = False
    gone = AgentState(Phase.DONE, "killed by Ray, since its actor on n1 did not respond")
    assert (stage.look(LOOK_S + 1), stage.ended) == (gone, True)


def test_remaining_trials_are_read_from_the_sweep(sweep: str) -> None:
    left = left_of(sweep)
    assert (left(), left_of("unknown")()) == (Remaining(1), Remaining(None))
    Path(".fersweep/sweeps.db").write_text("no database")
    assert left() is None


def test_node_that_does_not_answer_keeps_its_agent_and_without_the_drivers_own_node_all_have_failed() -> None:
    stage = Stage()
    stage.actor.error = ActorUnavailableError("later")
    assert stage.look() == AgentState(Phase.RUNNING, "on n1, which does not respond")
    stage.actor.error = None
    assert stage.look() == RUNNING
    stage.ray.is_alive = False
    note = "Ray on this host has ended; run the command again to resume the trials"
    assert (stage.look(), stage.ended) == (AgentState(Phase.FAILED, note), True)


@pytest.mark.parametrize(("has_gpus", "seen"), [(True, "3"), (False, "")])
def test_agent_sees_the_gpus_of_its_actor(has_gpus: bool, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    actor = AgentActor()
    actor.start([*STUB.split(), "agent", "0"], {}, has_gpus, ".", "logs/0.log", "agent 0, start 2")
    until(lambda: actor.poll() == 0)
    assert calls()[0]["CUDA_VISIBLE_DEVICES"] == seen
    assert Path("logs/0.log").read_text().startswith(f"== agent 0, start 2, on {socket.gethostname()} at ")


def test_reason_why_an_agent_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FileNotFoundError(2, "No such file or directory", "/work")
    monkeypatch.setattr(Agent, "start", Mock(side_effect=error, __name__="start"))
    assert Stage().look() == AgentState(Phase.FAILED, f"it cannot be started: {error}")
    actor = AgentActor()
    actor.start(["nosuchprogram"], {}, False, ".", "0.log", "agent 0")
    until(lambda: actor.poll() is not None)
    assert "nosuchprogram cannot be started: No such file" in Path("0.log").read_text()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        actor.start(["true"], {}, False, ".", "/dev/full", "agent 0")


SILENT = "127.0.0.1:1"  # nothing listens there
NO_RAY = ConnectionError("Could not find any running Ray instance. Start one")


@pytest.mark.parametrize(
    ("address", "named", "error", "says", "hint"),
    [
        (SILENT, "", None, "cannot connect to Ray at 127.0.0.1:1: .*refused", "ray status"),
        ("auto", SILENT, None, "cannot connect to Ray at 127.0.0.1:1: .*refused", "ray status"),
        ("auto", "", NO_RAY, "no Ray cluster found on this host", "ray start"),
        (None, SILENT, RuntimeError("no\nspace"), "cannot connect to Ray: no space", "/tmp/ray"),
        (None, "", None, "on this host no node has 2 CPUs, 1 GPU; the maximum on a node is 1 CPU, 0 GPUs", "gpus: 0"),
    ],
)
def test_unreachable_ray_is_reported_with_a_hint(
    address: str | None, named: str, error: Exception | None, says: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", named)
    ray = ScriptedRay(resources={"CPU": 1.0}, init_fails=error)
    with pytest.raises(PoolError, match=says) as refused:
        connect(ray, replace(JOB, address=address))
    assert hint in str(refused.value.hint)
    assert ray.addresses == ([] if "127.0.0.1" in says else [address or "local"])


def agents_of(news: str) -> RayAgents:
    """A pool whose driver prints this and is killed."""
    dies = f"import os; print({news!r}, end='', flush=True); os.kill(os.getpid(), 9)"
    return RayAgents(RayPool(kind="ray"), driver=(sys.executable, "-S", "-c", dies))


@pytest.mark.parametrize(
    ("news", "is_installed", "says", "hint"),
    [
        ('{"refused": "no Ray answers", "hint": "start one"}\n', True, "no Ray answers", "start one"),
        ("", True, "Ray does not respond: it printed nothing", "ray status"),
        ("", False, "Ray is not installed", "pip install 'fersweep[ray]'"),
    ],
)
def test_driver_that_cannot_connect_is_reported_with_a_hint(
    news: str, is_installed: bool, says: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_installed:
        monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PoolError, match=says) as refused:
        agents_of(news).start(stub("0"), 1)
    assert hint in str(refused.value.hint)


def test_agents_of_a_driver_that_is_killed_in_the_middle_of_its_news_have_failed() -> None:
    pool = agents_of('{"ready": true}\n{"states": {"0": [')
    (agent,) = pool.start(stub("0"), 1)
    until(lambda: pool.states()[agent].has_ended)
    assert pool.states()[agent] == AgentState(Phase.FAILED, "the Ray driver ended with code -9")
    pool.stop(agent, grace_s=60)  # does nothing
