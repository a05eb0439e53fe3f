"""Signals to a whole agent on a terminal: what is left of processes, terminal and trials."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until

pytestmark = [
    pytest.mark.usefixtures("tiny_data", "one_core"),
    pytest.mark.skipif(sys.platform == "win32", reason="terminals as Unix has them"),
]


@dataclass
class OnTerminal:
    """An agent whose terminal is ours to type at and to read."""

    folder: Path
    process: subprocess.Popen[bytes]
    controller: int
    terminal: int
    settings: list[object]
    shown: bytearray = field(default_factory=bytearray)

    def type_ctrl_c(self) -> None:
        os.write(self.controller, b"\x03")

    def epochs(self) -> int:
        history = self.folder / "history.jsonl"
        return history.read_text().count("\n") if history.is_file() else 0

    def text(self) -> str:
        return self.shown.decode(errors="replace")

    def read(self) -> None:
        while True:
            try:
                data = os.read(self.controller, 65536)
            except OSError:  # the last one on the other side has gone
                return
            if not data:
                return
            self.shown += data


@pytest.fixture
def on_terminal(tiny_data: str, tmp_path: Path) -> Iterator[OnTerminal]:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "5000").replace("run_cap: 1", "run_cap: 2"))
    sweep = fersweep("create", "sweep.yaml").stdout.strip()
    controller, terminal = pty.openpty()
    settings = termios.tcgetattr(terminal)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, termios, os; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            f"os.execv({COMMAND[0]!r}, {[*COMMAND, 'agent', '--gpus', 'none']!r})",
        ],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    agent = OnTerminal(
        tmp_path / ".fersweep" / "sweeps" / sweep / "trials" / "0", process, controller, terminal, settings
    )
    reader = threading.Thread(target=agent.read, daemon=True)
    reader.start()
    yield agent
    if process.poll() is None:
        process.kill()
        process.wait()
    os.close(terminal)
    reader.join(timeout=10)
    os.close(controller)


@pytest.mark.parametrize(("times", "has_checkpoint"), [(2, True), (3, None)])
def test_ctrl_c_on_a_terminal_leaves_no_process_and_the_terminal_as_it_was(
    on_terminal: OnTerminal, times: int, has_checkpoint: bool | None
) -> None:
    agent = on_terminal
    until(lambda: agent.epochs() >= 3)
    family = {agent.process.pid} | descendants(agent.process.pid)
    said = ("no new trials", "writing checkpoints", "killing the trials")
    for number in range(times):
        agent.type_ctrl_c()
        # Each is one more only once the one before was heard; the third may come too late to be said.
        until(lambda wanted=said[number]: wanted in agent.text() or agent.process.poll() is not None)
    assert agent.process.wait(timeout=60) == 130
    until(lambda: not any(alive(pid) for pid in family))
    assert termios.tcgetattr(agent.terminal) == agent.settings
    until(lambda: "next: fersweep agent" in agent.text())
    shown = agent.text()
    assert "Traceback" not in shown
    assert shown.count("\x1b[?25l") <= shown.count("\x1b[?25h"), "the cursor is still hidden"
    assert not re.search(r"\x1b\[\?1049h(?!.*\x1b\[\?1049l)", shown, re.DOTALL), "still on the other screen"
    if has_checkpoint:
        assert (agent.folder / "last.ckpt").is_file()
    states = [trial["state"] for trial in json.loads(fersweep("status", "--json").stdout)["trials"]]
    assert states == ["preempted"]


def test_one_ctrl_c_finishes_what_runs_and_starts_nothing(on_terminal: OnTerminal) -> None:
    agent = on_terminal
    until(lambda: agent.epochs() >= 3)
    agent.type_ctrl_c()
    until(lambda: "no new trials; 1 running will finish" in agent.text())
    before = agent.epochs()
    until(lambda: agent.epochs() > before + 3)
    assert agent.process.poll() is None
    agent.type_ctrl_c()
    assert agent.process.wait(timeout=60) == 130


def test_a_terminal_that_is_closed_checkpoints_and_leaves_no_process(on_terminal: OnTerminal) -> None:
    agent = on_terminal
    until(lambda: agent.epochs() >= 3)
    family = {agent.process.pid} | descendants(agent.process.pid)
    os.killpg(os.getpgid(agent.process.pid), signal.SIGHUP)  # what the kernel sends when the terminal goes
    assert agent.process.wait(timeout=60) == 130
    until(lambda: not any(alive(pid) for pid in family))
    assert (agent.folder / "last.ckpt").is_file()
