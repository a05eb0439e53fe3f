"""``fersweep agent --pool``: what it starts, follows and prints, and what signals do to it."""

import io
import json
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.main import get_command

from fer_sweep.cli import app, pooling
from fer_sweep.errors import PoolError
from fer_sweep.pools import AgentCommand, AgentState, Phase, following
from tests.cli.conftest import Shell
from tests.support.pool_stage import REPOSITORY, readme_commands
from tests.support.processes import SWEEP

pytestmark = pytest.mark.usefixtures("tiny_data")

RUNNING, DONE, FAILED = AgentState(Phase.RUNNING, "on n1"), AgentState(Phase.DONE), AgentState(Phase.FAILED, "broke")
Look = AgentState | list[AgentState] | tuple[signal.Signals, ...] | PoolError
LOCAL = str(REPOSITORY / "agents" / "local.yaml")


class ScriptedPool:
    """Plays what its agents do, look by look; signals are those that come while it is asked."""

    def __init__(self, *looks: Look, outlives_us: bool = False) -> None:
        self.outlives_us = outlives_us
        self._looks = list(looks)
        self._shown: Mapping[str, AgentState] = {}
        self.command = AgentCommand("", (), Path())
        self.stopped: list[tuple[str, float]] = []

    def start(self, command: AgentCommand, agents: int) -> Sequence[str]:
        self.command = command
        self._shown = {f"7_{number}": RUNNING for number in range(agents)}
        return list(self._shown)

    def states(self) -> Mapping[str, AgentState]:
        look = self._looks.pop(0) if self._looks else None
        if isinstance(look, PoolError):
            raise look
        if isinstance(look, tuple):
            for number in look:
                signal.raise_signal(number)
        elif look is not None:
            looks = [look] * len(self._shown) if isinstance(look, AgentState) else look
            self._shown = dict(zip(self._shown, looks, strict=True))
        return self._shown

    def stop(self, agent_id: str, *, grace_s: float) -> None:
        self.stopped.append((agent_id, grace_s))
        self._shown = {**self._shown, agent_id: DONE}


@pytest.fixture
def sweep(shell: Shell) -> str:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    return str(shell.json("create", "sweep.yaml")["sweep"])


def opened(monkeypatch: pytest.MonkeyPatch, *looks: Look, outlives_us: bool = False) -> ScriptedPool:
    """What any pool file opens from now on."""
    pool = ScriptedPool(*looks, outlives_us=outlives_us)
    monkeypatch.setattr(pooling, "open_pool", lambda pool_file: pool)
    return pool


def test_agents_are_started_as_told_and_followed_to_their_end(
    shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = opened(monkeypatch, DONE)
    code, out, err = shell("agent", sweep, "--pool", LOCAL, "--agents", "2", "--gpus", "none", "--count", "3", "--json")
    assert code == 0
    assert json.loads(out) == {"sweep": sweep, "agents": {"7_0": "done", "7_1": "done"}, "interrupted": False}
    assert pool.command.words == ("agent", sweep, "--gpus=none", "--count=3")
    assert f"2 agents on sweep {sweep}: 7_0 to 7_1" in err
    assert f"grep -l 'trial N[ :]' {pool.command.logs}/*" in err
    assert "agents 7_0, 7_1: done" in err
    assert f"next: fersweep best {sweep}" in err


def test_some_failed_agents_are_noted_and_all_of_them_are_an_error(
    shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("agent", sweep, "--pool", LOCAL, "--agents", "2")
    opened(monkeypatch, [DONE, FAILED])
    code, _, err = shell(*words)
    assert (code, "note: agent 7_1 broke" in err) == (0, True)
    opened(monkeypatch, FAILED)
    code, _, err = shell(*words)
    assert (code, "every agent failed: agent 7_0 broke; agent 7_1 broke" in err) == (1, True)


class Reader(io.StringIO):
    """Somebody who reads what is printed, and presses Ctrl-C once it is offered."""

    def write(self, text: str) -> int:
        if "Ctrl-C again" in text:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


INT, HUP = signal.SIGINT, signal.SIGHUP


@pytest.mark.parametrize(
    ("outlives_us", "signals", "reader", "stops"),
    [
        pytest.param(False, (INT,), io.StringIO, True, id="Ctrl-C"),
        pytest.param(False, (signal.SIGTERM,), io.StringIO, True, id="SIGTERM"),
        pytest.param(True, (INT,), io.StringIO, False, id="Slurm: Ctrl-C"),
        pytest.param(True, (INT,), Reader, True, id="Slurm: Ctrl-C twice"),
        pytest.param(True, (INT, INT), io.StringIO, True, id="Slurm: Ctrl-C twice before an answer of squeue"),
        pytest.param(True, (HUP,), Reader, False, id="Slurm: the terminal closes"),
    ],
)
def test_signals_end_the_following_and_agents_that_would_not_outlive_it(
    outlives_us: bool,
    signals: tuple[signal.Signals, ...],
    reader: type[io.StringIO],
    stops: bool,
    shell: Shell,
    sweep: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pooling, "SECOND_THOUGHTS_S", 0.0)
    pool = opened(monkeypatch, signals, outlives_us=outlives_us)
    said = reader()
    monkeypatch.setattr(sys, "stderr", said)
    code, _, _ = shell("agent", sweep, "--pool", LOCAL)
    assert code == 130
    assert pool.stopped == ([("7_0", pooling.GRACE_S)] if stops else [])
    assert ("the agents work on: squeue --job 7; to end them: scancel 7" in said.getvalue()) == (not stops)
    assert f"next: fersweep status {sweep}" in said.getvalue()


def test_changes_are_said_once_and_a_scheduler_that_does_not_answer_is_asked_again() -> None:
    waiting = AgentState(Phase.WAITING)
    pool = ScriptedPool(waiting, PoolError("squeue does not answer"), PoolError("squeue does not answer"),
                        [RUNNING] * 7 + [waiting], [RUNNING] * 7 + [waiting], DONE)  # fmt: skip
    pool.start(AgentCommand("abc", (), Path()), 8)
    said: list[str] = []
    assert set(following.follow(pool, said.append, lambda seconds: False).values()) == {DONE}
    first = "7_0, 7_1, 7_2, 7_3, 7_4, 7_5"
    assert said == [
        f"agents {first} and 2 more: waiting",
        "squeue does not answer; asking again",
        f"agents {first} and 1 more: running (on n1)",
        f"agents {first} and 2 more: done",
    ]


@pytest.mark.parametrize(
    ("pool", "words", "says"),
    [
        ("kind: slurm\npartitoin: gpu\n", (), "line 2: partitoin: no such key (did you mean partition?)"),
        ("kind: local\n", ("--mirror", "m"), "--mirror is for an agent on this host"),
        (None, ("--agents", "2"), "--agents goes with --pool"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(
    pool: str | None, words: Sequence[str], says: str, shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = opened(monkeypatch, DONE)
    if pool is not None:
        Path("pool.yaml").write_text(pool)
        words = ("--pool", "pool.yaml", *words)
    code, _, err = shell("agent", sweep, *words)
    assert (code, says in err, started.command.words) == (2, True, ())


@pytest.mark.parametrize("state", ["stopped", "cancelled"])
def test_sweep_that_is_over_starts_no_agent(
    state: str, shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = opened(monkeypatch, DONE)
    shell({"stopped": "stop", "cancelled": "cancel"}[state], sweep)
    code, _, err = shell("agent", sweep, "--pool", LOCAL)
    assert (code, f"sweep {sweep} is {state}" in err, pool.command.words) == (3, True, ())


@pytest.mark.parametrize(
    ("pool", "is_noted"),
    [("kind: local", False), ("kind: ray", False), ("kind: ray\naddress: auto", True), ("kind: slurm", True)],
)
def test_sqlite_is_noted_where_agents_may_be_on_other_hosts(
    pool: str, is_noted: bool, shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(monkeypatch, DONE)
    Path("pool.yaml").write_text(pool)
    code, _, err = shell("agent", sweep, "--pool", "pool.yaml")
    assert (code, "fersweep create --storage postgresql" in err) == (0, is_noted)


@pytest.mark.parametrize("cluster", ["Slurm", "Ray"])
def test_commands_of_the_readme_are_ones_that_fersweep_understands(cluster: str) -> None:
    lines = [shlex.split(line) for line in readme_commands(f"On a {cluster} cluster")]
    assert [words[1] for words in lines] == ["create", "agent", "status", "best"]
    for _, name, *words in lines:
        with get_command(app).commands[name].make_context(name, words) as context:
            assert all((REPOSITORY / path).is_file() for path in (context.params.get("pool"),) if path)


@pytest.mark.usefixtures("one_core")
def test_real_agent_of_the_shipped_local_file_trains_the_sweep(
    shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FOLLOW_S", 0.05)
    code, out, err = shell("agent", sweep, "--pool", LOCAL, "--gpus", "none", "--slots", "1", "--json")
    assert (code, json.loads(out)["agents"]) == (0, {"0": "done"}), err
    assert [trial["state"] for trial in shell.json("status", sweep)["trials"]] == ["complete"]
    code, _, err = shell("agent", sweep, "--pool", LOCAL)
    assert (code, f"sweep {sweep} is finished" in err) == (3, True)
