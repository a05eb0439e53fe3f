"""Agents on Ray: the pool on a scripted Ray, the actor on a node, and the errors."""

import os
import signal
import socket
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from fer_sweep.config.pool_file import RayPool
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentState, Phase
from fer_sweep.pools.agent_process import AgentProcess
from fer_sweep.pools.ray_cluster import LOOK_S, SHORT_S, RayAgents, remaining, useful
from fer_sweep.pools.ray_connection import connect
from fer_sweep.sweeps import Remaining
from tests.support.pool_stage import stub
from tests.support.processes import until
from tests.support.scripted_ray import Actor, ActorUnavailableError, RayError, ScriptedRay

TERM, KILL = signal.SIGTERM, signal.SIGKILL
POOL = RayPool(kind="ray", address="auto", gpus=1, cpus=2)
GRACE_S = 60.0
DONE = AgentState(Phase.DONE)
LOG = Path(f"logs/ray-{os.getpid()}-0.log")
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
    """A pool of scripted agents, with a clock."""

    def __init__(self, agents: int = 1, *, free: int | None = None, has_room: bool = True, gpus: float = 1) -> None:
        self.ray = ScriptedRay(Agent, has_room)
        self.left = Remaining(free)
        """Of the sweep."""
        self._now = 0.0
        self.log = LOG.absolute()
        self.running = AgentState(Phase.RUNNING, f"on n1, log {self.log}")
        self.pool = RayAgents(
            POOL.model_copy(update={"gpus": gpus}),
            ray=self.ray,
            left=lambda sweep: self.left,
            clock=lambda: self._now,
            wait=self._pass_time,
        )
        self.pool.start(stub("0"), agents)
        self.look()

    def _pass_time(self, seconds: float) -> None:
        self._now += seconds

    def look(self, after_s: float = LOOK_S) -> AgentState:
        """Let the pool see what has changed; returns the first agent's state."""
        self._pass_time(after_s)
        self.pool.states()  # an agent that is started at the first look is seen to run at the second
        return self.states[0]

    @property
    def states(self) -> list[AgentState]:
        return list(self.pool.states().values())

    @property
    def actor(self) -> Actor:
        """The latest."""
        return self.ray.actors[-1]


def test_no_more_agents_are_started_than_there_are_trials_and_ray_stores_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    stage = Stage(agents=4, free=1)
    assert [state.phase for state in stage.states] == [Phase.RUNNING] + [Phase.WAITING] * 3
    assert stage.actor.object.arguments[1]["PGPASSWORD"] == "secret"
    assert "secret" not in str(stage.ray.options)
    stage.left = Remaining(0, leased=1)
    assert stage.look() == stage.running
    stage.actor.object.code, stage.left = 0, Remaining(0)
    assert stage.look() == DONE and stage.ray.is_shut_down
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
    assert stage.look() == lost
    stage.ray.has_room, stage.left = True, Remaining(1)
    assert stage.look() == stage.running
    assert stage.actor.object.arguments[-1] == "agent 0, start 2"


def test_agent_that_is_lost_three_times_in_a_row_soon_after_its_start_has_failed() -> None:
    stage = Stage()
    for lived_s in (1, 1, SHORT_S * 2, 1, 1, 1):
        assert stage.look(lived_s) == stage.running
        stage.actor.error = LOST
        state = stage.look(0)
    assert state == AgentState(Phase.FAILED, "lost 3 times in a row, the last time with: The actor died.")


@pytest.mark.parametrize("free", [10, None])
def test_exit_code_says_how_an_agent_ended_and_it_is_not_started_again(free: int | None) -> None:
    failed = AgentState(Phase.FAILED, f"exit code 1: see {LOG.absolute()}")
    for code, state in ((3, DONE), (130, AgentState(Phase.DONE, "stopped")), (1, failed)):
        stage = Stage(free=free)
        stage.actor.object.code = code
        assert (stage.look(), stage.ray.is_shut_down) == (state, True)


def test_waiting_agent_names_what_no_node_has_and_ends_without_trials_or_if_stopped() -> None:
    stage = Stage(has_room=False)
    assert stage.look() == AgentState(Phase.WAITING, "for 2 CPUs, 1 GPU")
    stage.ray.resources = {"CPU": 8.0}
    note = "no node has 2 CPUs, 1 GPU; the maximum on a node is 8 CPUs, 0 GPUs"
    assert stage.look() == AgentState(Phase.WAITING, note)
    stage.left = Remaining(0)
    assert stage.look() == AgentState(Phase.DONE, "no trials left for it")
    stage = Stage(has_room=False)
    stage.pool.stop("0", grace_s=GRACE_S)
    assert stage.states == [AgentState(Phase.DONE, "stopped before it started")]


def test_stopped_agent_is_killed_after_its_grace_and_dropped_where_its_actor_does_not_respond() -> None:
    stage = Stage()
    agent = stage.actor.object
    stage.pool.stop("0", grace_s=GRACE_S)
    assert agent.told == [TERM, KILL]
    assert stage.states == [AgentState(Phase.DONE, "killed by Ray, since its actor on n1 did not respond")]


def test_remaining_trials_are_read_from_the_sweep(sweep: str) -> None:
    assert (remaining(sweep), remaining("unknown")) == (Remaining(1), Remaining(None))
    Path(".fersweep/sweeps.db").write_text("no database")
    assert remaining(sweep) is None


def test_node_that_does_not_answer_keeps_its_agent_and_without_its_own_node_all_have_failed() -> None:
    stage = Stage()
    stage.actor.error = ActorUnavailableError("later")
    assert stage.look() == AgentState(Phase.RUNNING, "on n1, which does not respond")
    stage.actor.error = None
    assert stage.look() == stage.running
    stage.ray.is_alive = False
    note = "Ray on this host has ended; run the command again to resume the trials"
    assert stage.look() == AgentState(Phase.FAILED, note)


@pytest.mark.parametrize(("gpus", "seen"), [(0.5, None), (0, "")])
def test_agent_sees_the_gpus_that_ray_gives_its_actor_and_without_a_share_none(gpus: float, seen: str | None) -> None:
    stage = Stage(gpus=gpus)
    assert stage.actor.object.arguments[1].get("CUDA_VISIBLE_DEVICES") == seen


def test_reason_why_an_agent_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FileNotFoundError(2, "No such file or directory", "/work")
    monkeypatch.setattr(Agent, "start", Mock(side_effect=error, __name__="start"))
    assert Stage().look() == AgentState(Phase.FAILED, f"it cannot be started: {error}")
    actor = AgentProcess()
    actor.start(["nosuchprogram"], {}, ".", "0.log", "agent 0, start 2")
    until(lambda: actor.poll() is not None)
    log = Path("0.log").read_text()
    assert log.startswith(f"== agent 0, start 2, on {socket.gethostname()} at ")
    assert "nosuchprogram cannot be started: No such file" in log
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        actor.start(["true"], {}, ".", "/dev/full", "agent 0")


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
        connect(ray, POOL.model_copy(update={"address": address}))
    assert hint in str(refused.value.hint)
    assert ray.addresses == ([] if "127.0.0.1" in says else [address or "local"])


def test_missing_ray_is_reported_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PoolError, match="Ray is not installed") as refused:
        RayAgents(POOL).start(stub("0"), 1)
    assert "pip install 'fersweep[ray]'" in str(refused.value.hint)
