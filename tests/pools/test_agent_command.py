"""``fersweep agent --pool``: what it starts, follows and prints, and what signals do to it."""

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fer_sweep.cli import agent as agent_commands
from fer_sweep.cli.printing import say
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentCommand, AgentState, Phase, follow
from tests.support.documentation import REPOSITORY
from tests.support.shell import Shell

RUNNING, DONE, FAILED = AgentState(Phase.RUNNING, "on n1"), AgentState(Phase.DONE), AgentState(Phase.FAILED, "broke")
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
LOCAL = ("--pool", str(REPOSITORY / "agents" / "local.yaml"))
Look = list[AgentState] | tuple[signal.Signals, ...] | PoolError


class ScriptedPool:
    """Plays the states of its agents, query by query; signals arrive during a query."""

    def __init__(self, *looks: Look, outlives_us: bool = False) -> None:
        self.outlives_us = outlives_us
        self.command: AgentCommand | None = None
        self.stopped: list[tuple[str, float]] = []
        self._looks = iter(looks)

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        self.command = command
        self._shown = {f"7_{number}": RUNNING for number in range(agents)}
        return list(self._shown)

    def states(self) -> Mapping[str, AgentState]:
        match next(self._looks, []):
            case PoolError() as error:
                raise error
            case tuple() as signals:
                for number in signals:
                    signal.raise_signal(number)
            case states:
                self._shown |= zip(self._shown, states, strict=False)
        return self._shown

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        self.stopped.append((agent_id, grace_s))


Agent = Callable[..., tuple[int, str, str]]


@pytest.fixture
def agent(shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """Runs the command; whatever its pool file, it opens ``pool``."""

    def run(pool: ScriptedPool, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(agent_commands, "open_pool", lambda pool_file: pool)
        return shell("agent", sweep, *words)

    return run


def test_agents_are_started_with_their_options_and_followed_to_their_end(agent: Agent, sweep: str) -> None:
    pool = ScriptedPool([DONE, DONE])
    code, out, err = agent(pool, *LOCAL, "--agents", "2", "--gpus", "none", "--count", "3", "--json")
    assert code == 0 and pool.command is not None
    assert json.loads(out) == {"sweep": sweep, "agents": {"7_0": "done", "7_1": "done"}, "interrupted": False}
    assert pool.command.words == ("agent", sweep, "--gpus=none", "--count=3")
    assert f"2 agents on sweep {sweep}: 7_0 to 7_1" in err
    assert f"grep -l 'trial N[ :]' {pool.command.logs}/*" in err
    assert f"agents 7_0, 7_1: done\nnext: fersweep best {sweep}" in err


@pytest.mark.parametrize("words", ["--hours=2", "--deadline=18:30"])
def test_all_agents_end_at_the_same_time(words: str, agent: Agent) -> None:
    before = datetime.now().astimezone()
    pool = ScriptedPool([DONE])
    code, _, err = agent(pool, *LOCAL, words)
    assert code == 0 and pool.command is not None
    option, _, end = pool.command.words[-1].partition("=")
    assert option == "--deadline" and len(pool.command.words) == 3
    assert timedelta(0) < datetime.fromisoformat(end) - before <= timedelta(hours=24)
    assert "the deadline has come; no trial is complete" in err


def test_some_failed_agents_are_noted_and_all_of_them_are_an_error(agent: Agent) -> None:
    code, _, err = agent(ScriptedPool([DONE, FAILED]), *LOCAL, "--agents", "2")
    assert (code, "note: agent 7_1 broke" in err) == (0, True)
    code, _, err = agent(ScriptedPool([FAILED, FAILED]), *LOCAL, "--agents", "2")
    assert (code, "every agent failed: agent 7_0 broke; agent 7_1 broke" in err) == (1, True)


def say_and_press_again(text: str) -> None:
    """Press Ctrl-C once it is offered."""
    say(text)
    if "Ctrl-C again" in text:
        signal.raise_signal(INT)


@pytest.mark.parametrize(
    ("outlives_us", "signals", "says", "stops"),
    [
        pytest.param(False, (INT,), say, True, id="Ctrl-C"),
        pytest.param(False, (TERM,), say, True, id="SIGTERM"),
        pytest.param(True, (INT,), say, False, id="Slurm: Ctrl-C"),
        pytest.param(True, (INT,), say_and_press_again, True, id="Slurm: Ctrl-C twice"),
        pytest.param(True, (INT, INT), say, True, id="Slurm: Ctrl-C twice before an answer of squeue"),
        pytest.param(True, (HUP,), say_and_press_again, False, id="Slurm: the terminal closes"),
    ],
)
def test_signals_end_the_following_and_agents_that_would_not_outlive_it(
    outlives_us: bool, signals: Look, says: object, stops: bool, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_commands, "SECOND_THOUGHTS_S", 0.0)
    monkeypatch.setattr(agent_commands, "say", says)
    pool = ScriptedPool(signals, outlives_us=outlives_us)
    code, _, err = agent(pool, *LOCAL)
    assert (code, pool.stopped) == (130, [("7_0", agent_commands.GRACE_S)] if stops else [])
    assert ("the agents keep running: squeue --job 7; to stop them: scancel 7" in err) == (not stops)
    assert "next: fersweep status" in err


def test_changes_are_reported_once_and_a_failed_query_is_retried() -> None:
    waiting, silent = AgentState(Phase.WAITING), PoolError("squeue does not respond")
    seven = [RUNNING] * 7 + [waiting]
    pool = ScriptedPool([waiting] * 8, silent, silent, seven, seven, [DONE] * 8)
    pool.start(AgentCommand("abc", (), Path()), 8)
    said: list[str] = []
    assert set(follow(pool, said.append, lambda seconds: False).values()) == {DONE}
    assert said == [
        "agents 7_0, 7_1, 7_2, 7_3, 7_4, 7_5 and 2 more: waiting",
        "squeue does not respond; retrying",
        "agents 7_0, 7_1, 7_2, 7_3, 7_4, 7_5 and 1 more: running (on n1)",
        "agents 7_0, 7_1, 7_2, 7_3, 7_4, 7_5 and 2 more: done",
    ]


@pytest.mark.parametrize(
    ("before", "words", "code", "says"),
    [
        ("", "--pool typo.yaml", 2, "line 2: partitoin: no such key"),
        ("", "--pool local.yaml --mirror m", 2, "--mirror is for an agent on this host"),
        ("", "--agents 2", 2, "--agents needs --pool FILE"),
        ("stop", "--pool local.yaml", 3, " is stopped"),
        ("cancel", "--pool local.yaml", 3, " is cancelled"),
    ],
)
def test_invalid_requests_are_refused_before_an_agent_starts(
    before: str, words: str, code: int, says: str, agent: Agent, shell: Shell, sweep: str
) -> None:
    Path("typo.yaml").write_text("kind: slurm\npartitoin: gpu\n")
    Path("local.yaml").write_text("kind: local\n")
    if before:
        shell(before, sweep)
    pool = ScriptedPool()
    ended, _, err = agent(pool, *words.split())
    assert (ended, says in err, pool.command) == (code, True, None)


@pytest.mark.parametrize("text", ["kind: local", "kind: ray", "kind: ray\naddress: auto", "kind: slurm"])
def test_sqlite_is_noted_where_agents_may_be_on_other_hosts(text: str, agent: Agent) -> None:
    Path("pool.yaml").write_text(text)
    _, _, err = agent(ScriptedPool([DONE]), "--pool", "pool.yaml")
    assert ("fersweep create --storage postgresql" in err) == (text not in ("kind: local", "kind: ray"))
