"""A whole agent as a process that is interrupted or killed: what is left of its processes, terminal and trials."""

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until, words_of

pytestmark = [
    pytest.mark.usefixtures("tiny_data", "one_core"),
    pytest.mark.skipif(sys.platform == "win32", reason="terminals and process groups as Unix has them"),
]
AGENT = [*COMMAND, "agent", "--gpus", "none"]


def create(epochs: int) -> Path:
    """Create a sweep of one trial; gives the trial's folder."""
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", str(epochs)))
    sweep = fersweep("create", "sweep.yaml").stdout.strip()
    return Path(".fersweep").resolve() / "sweeps" / sweep / "trials" / "0"


def epochs_in(folder: Path) -> list[int]:
    history = folder / "history.jsonl"
    whole_lines = history.read_text().rpartition("\n")[0].splitlines() if history.is_file() else []
    return [json.loads(line)["epoch"] for line in whole_lines]


def state_of_trial() -> str:
    (trial,) = json.loads(fersweep("status", "--json").stdout)["trials"]
    return str(trial["state"])


@contextmanager
def started(words: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Killed with its process group, if a test fails."""
    with subprocess.Popen(words, process_group=0, stderr=subprocess.PIPE, **options) as agent:
        try:
            yield agent
        finally:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)


class Terminal:
    """A pseudo-terminal that a test types at and reads."""

    def __init__(self) -> None:
        self.controller, self.terminal = pty.openpty()
        self.settings = termios.tcgetattr(self.terminal)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return self._shown.decode(errors="replace")

    def _read(self) -> None:
        try:
            while data := os.read(self.controller, 65536):
                self._shown += data
        except OSError:  # the last one on the other side has gone
            return

    def close(self) -> None:
        os.close(self.terminal)
        self._reader.join()
        os.close(self.controller)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


TAKE_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
TAKE_TERMINAL += "os.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize("times", [pytest.param(2, marks=pytest.mark.process), 3])
def test_ctrl_c_on_a_terminal_leaves_no_process_and_the_terminal_as_it_was(terminal: Terminal, times: int) -> None:
    folder = create(5000)
    own = terminal.terminal
    agent = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *AGENT],
        stdin=own,
        stdout=own,
        stderr=own,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    with agent:
        try:
            until(lambda: len(epochs_in(folder)) >= 1)
            family = {agent.pid} | descendants(agent.pid)
            for said in ("no new trials; 1 running will finish", "writing checkpoints", "killing the trials")[:times]:
                os.write(terminal.controller, b"\x03")
                # Each counts only once the one before was heard; the third may come too late to be said.
                until(lambda said=said: said in terminal.text or agent.poll() is not None)
            assert agent.wait(timeout=120) == 130
        finally:
            agent.kill()
    until(lambda: not any(alive(pid) for pid in family))
    assert termios.tcgetattr(terminal.terminal) == terminal.settings
    until(lambda: "next: fersweep agent" in terminal.text)
    assert "Traceback" not in terminal.text
    assert terminal.text.count("\x1b[?25l") <= terminal.text.count("\x1b[?25h"), "the cursor is still hidden"
    assert not re.search(r"\x1b\[\?1049h(?!.*\x1b\[\?1049l)", terminal.text, re.DOTALL), "still on the other screen"
    assert state_of_trial() == "preempted"
    assert times == 3 or (folder / "last.ckpt").is_file()


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_to_the_whole_group_checkpoints(number: signal.Signals) -> None:
    """What scancel, `timeout` and a closed terminal do: agent, forkserver and trials all get it."""
    folder = create(5000)
    with started(AGENT, stdout=subprocess.DEVNULL) as agent:
        until(lambda: len(epochs_in(folder)) >= 2)
        family = {agent.pid} | descendants(agent.pid)
        os.killpg(agent.pid, number)
        agent.wait()
    assert agent.returncode == 130
    assert state_of_trial() == "preempted"
    assert (folder / "last.ckpt").is_file()
    until(lambda: not any(alive(pid) for pid in family))


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_while_torch_is_imported_ends_cleanly(number: signal.Signals) -> None:
    create(3)
    with started(AGENT, stdout=subprocess.DEVNULL) as agent:
        until(lambda: any("forkserver" in words_of(pid) for pid in descendants(agent.pid)))
        family = {agent.pid} | descendants(agent.pid)
        os.killpg(agent.pid, number)
        said = agent.communicate()[1].decode()
    assert agent.returncode == 130, said
    assert "Traceback" not in said
    until(lambda: not any(alive(pid) for pid in family))


@pytest.mark.process
@pytest.mark.parametrize("killed", ["agent", "group"])
def test_a_killed_agent_leaves_no_process_and_the_next_one_resumes(killed: str) -> None:
    folder = create(80)
    with started(AGENT, stdout=subprocess.DEVNULL) as agent:
        until(lambda: len(epochs_in(folder)) >= 3)
        family = {agent.pid} | descendants(agent.pid)
        assert len(family) >= 3  # the agent, its forkserver and the trial
        (os.killpg if killed == "group" else os.kill)(agent.pid, signal.SIGKILL)
        agent.wait()
    until(lambda: not any(alive(pid) for pid in family))
    assert fersweep("agent", "--gpus", "none").returncode == 0
    assert state_of_trial() == "complete"
    assert epochs_in(folder) == list(range(1, 81))


@pytest.mark.process
def test_a_reader_that_leaves_does_not_end_the_sweep() -> None:
    Path("sweep.yaml").write_text(SWEEP.replace("EPOCHS", "20"))
    with started([*COMMAND, "run", "sweep.yaml", "--gpus", "none"], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        said = run.stderr.read().decode()
    assert run.returncode == 0, said
    assert state_of_trial() == "complete"


@pytest.mark.process
def test_ctrl_c_in_training_by_hand_writes_a_checkpoint_to_resume_from(tmp_path: Path) -> None:
    folder = tmp_path / "by-hand"
    words = ["train", "--model=simple_cnn", "--data=tiny", "--epochs=80", "--channels=4", "--hidden=8", "--device=cpu"]
    words += ["--batch-size=16", f"--folder={folder}"]
    with started([*COMMAND, *words]) as training:
        assert training.stderr is not None
        next(line for line in training.stderr if line.startswith(b"epoch 3/"))
        training.send_signal(signal.SIGINT)
        rest = training.stderr.read().decode()
    assert training.returncode == 130
    assert "next: fersweep train --config" in rest
    assert (folder / "last.ckpt").is_file()
    done = fersweep(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 80
    assert epochs_in(folder) == list(range(1, 81))
