"""``fersweep agent --pool``: what it starts, follows and prints, and what signals do to it."""

import io
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from fer_sweep.cli import pooling
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentCommand, AgentState, Phase, following
from tests.support.pool_stage import REPOSITORY
from tests.support.shell import Shell

RUNNING, DONE, FAILED = AgentState(Phase.RUNNING, "on n1"), AgentState(Phase.DONE), AgentState(Phase.FAILED, "broke")
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
LOCAL = ("--pool", str(REPOSITORY / "agents" / "local.yaml"))
Look = AgentState | list[AgentState] | tuple[signal.Signals, ...] | PoolError


class ScriptedPool:
    """Plays what its agents do, look by look; signals are those that come while it is asked."""

    def __init__(self, *looks: Look, outlives_us: bool = False) -> None:
        self.outlives_us = outlives_us
        self.command: AgentCommand | None = None
        self.stopped: list[tuple[str, float]] = []
        self._looks = list(looks)
        self._shown: Mapping[str, AgentState] = {}

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        self.command = command
        self._shown = {f"7_{number}": RUNNING for number in range(agents)}
        return list(self._shown)

    def states(self) -> Mapping[str, AgentState]:
        match self._looks.pop(0) if self._looks else ():
            case PoolError() as error:
                raise error
            case AgentState() as state:
                self._shown = dict.fromkeys(self._shown, state)
            case list() as states:
                self._shown = dict(zip(self._shown, states, strict=True))
            case signals:
                for number in signals:
                    signal.raise_signal(number)
        return self._shown

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        self.stopped.append((agent_id, grace_s))


Agent = Callable[..., tuple[int, str, str]]


@pytest.fixture
def agent(shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """Runs the command; whatever its pool file, it opens ``pool``."""

    def run(pool: ScriptedPool, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(pooling, "open_pool", lambda pool_file: pool)
        return shell("agent", sweep, *words)

    return run


def test_agents_are_started_as_told_and_followed_to_their_end(agent: Agent, sweep: str) -> None:
    pool = ScriptedPool(DONE)
    code, out, err = agent(pool, *LOCAL, "--agents", "2", "--gpus", "none", "--count", "3", "--json")
    assert code == 0 and pool.command is not None
    assert json.loads(out) == {"sweep": sweep, "agents": {"7_0": "done", "7_1": "done"}, "interrupted": False}
    assert pool.command.words == ("agent", sweep, "--gpus=none", "--count=3")
    assert f"2 agents on sweep {sweep}: 7_0 to 7_1" in err
    assert f"grep -l 'trial N[ :]' {pool.command.logs}/*" in err
    assert f"agents 7_0, 7_1: done\nnext: fersweep best {sweep}" in err


def test_some_failed_agents_are_noted_and_all_of_them_are_an_error(agent: Agent) -> None:
    code, _, err = agent(ScriptedPool([DONE, FAILED]), *LOCAL, "--agents", "2")
    assert (code, "note: agent 7_1 broke" in err) == (0, True)
    code, _, err = agent(ScriptedPool(FAILED), *LOCAL, "--agents", "2")
    assert (code, "every agent failed: agent 7_0 broke; agent 7_1 broke" in err) == (1, True)


class Reader(io.StringIO):
    """Somebody who reads what is printed, and presses Ctrl-C once it is offered."""

    def write(self, text: str) -> int:
        if "Ctrl-C again" in text:
            signal.raise_signal(INT)
        return super().write(text)


@pytest.mark.parametrize(
    ("outlives_us", "signals", "said", "stops"),
    [
        pytest.param(False, (INT,), io.StringIO(), True, id="Ctrl-C"),
        pytest.param(False, (TERM,), io.StringIO(), True, id="SIGTERM"),
        pytest.param(True, (INT,), io.StringIO(), False, id="Slurm: Ctrl-C"),
        pytest.param(True, (INT,), Reader(), True, id="Slurm: Ctrl-C twice"),
        pytest.param(True, (INT, INT), io.StringIO(), True, id="Slurm: Ctrl-C twice before an answer of squeue"),
        pytest.param(True, (HUP,), Reader(), False, id="Slurm: the terminal closes"),
    ],
)
def test_signals_end_the_following_and_agents_that_would_not_outlive_it(
    outlives_us: bool, signals: Look, said: io.StringIO, stops: bool, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "SECOND_THOUGHTS_S", 0.0)
    monkeypatch.setattr(sys, "stderr", said)
    pool = ScriptedPool(signals, outlives_us=outlives_us)
    assert agent(pool, *LOCAL)[0] == 130
    assert pool.stopped == ([("7_0", pooling.GRACE_S)] if stops else [])
    assert ("the agents work on: squeue --job 7; to end them: scancel 7" in said.getvalue()) == (not stops)
    assert "next: fersweep status" in said.getvalue()


def test_changes_are_said_once_and_a_scheduler_that_does_not_answer_is_asked_again() -> None:
    waiting, silent = AgentState(Phase.WAITING), PoolError("squeue does not answer")
    pool = ScriptedPool(waiting, silent, silent, [RUNNING] * 7 + [waiting], [RUNNING] * 7 + [waiting], DONE)
    pool.start(AgentCommand("abc", (), Path()), 8)
    said: list[str] = []
    assert set(following.follow(pool, said.append, lambda seconds: False).values()) == {DONE}
    assert said == [
        "agents 7_0, 7_1, 7_2, 7_3, 7_4, 7_5 and 2 more: waiting",
        "squeue does not answer; asking again",
        "agents 7_0, 7_1, 7_2, 7_3, 7_4, 7_5 and 1 more: running (on n1)",
        "agents 7_0, 7_1, 7_2, 7_3, 7_4, 7_5 and 2 more: done",
    ]


@pytest.mark.parametrize(
    ("pool_file", "words", "says"),
    [
        ("kind: slurm\npartitoin: gpu\n", ["--pool", "pool.yaml"], "line 2: partitoin: no such key"),
        ("kind: local\n", ["--pool", "pool.yaml", "--mirror", "m"], "--mirror is for an agent on this host"),
        ("", ["--agents", "2"], "--agents goes with --pool"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(
    pool_file: str, words: list[str], says: str, agent: Agent
) -> None:
    Path("pool.yaml").write_text(pool_file)
    pool = ScriptedPool(DONE)
    code, _, err = agent(pool, *words)
    assert (code, says in err, pool.command) == (2, True, None)


def test_sweep_that_is_over_starts_no_agent(agent: Agent, shell: Shell, sweep: str) -> None:
    pool = ScriptedPool(DONE)
    for command, state in (("stop", "stopped"), ("cancel", "cancelled")):
        shell(command, sweep)
        code, _, err = agent(pool, *LOCAL)
        assert (code, f"sweep {sweep} is {state}" in err, pool.command) == (3, True, None)


def test_sqlite_is_noted_where_agents_may_be_on_other_hosts(agent: Agent) -> None:
    files = {"kind: local": False, "kind: ray": False, "kind: ray\naddress: auto": True, "kind: slurm": True}
    for text, is_noted in files.items():
        Path("pool.yaml").write_text(text)
        code, _, err = agent(ScriptedPool(DONE), "--pool", "pool.yaml")
        assert (code, "fersweep create --storage postgresql" in err) == (0, is_noted)


@pytest.mark.process
@pytest.mark.usefixtures("one_core")
def test_real_agent_of_the_shipped_local_file_trains_the_sweep(
    shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FOLLOW_S", 0.05)
    code, out, err = shell("agent", sweep, *LOCAL, "--gpus", "none", "--slots", "1", "--json")
    assert (code, json.loads(out)["agents"]) == (0, {"0": "done"}), err
    assert [trial["state"] for trial in shell.json("status", sweep)["trials"]] == ["complete"]
