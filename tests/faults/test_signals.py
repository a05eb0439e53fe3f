"""A whole agent as a process that is interrupted or killed: what is left of its processes, terminal and trials."""

import contextlib
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
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until, words_of

pytestmark = [
    pytest.mark.usefixtures("tiny_data", "one_core"),
    pytest.mark.skipif(sys.platform != "linux", reason="terminals, process groups and /proc as Linux has them"),
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


@contextlib.contextmanager
def started(words: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Killed with its process group, if a test fails."""
    with subprocess.Popen(words, process_group=0, stderr=subprocess.PIPE, **options) as agent:
        try:
            yield agent
        finally:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)


class Terminal(threading.Thread):
    """A pseudo-terminal that a test types at and reads."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.controller, self.side = pty.openpty()
        self.text = ""

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the last one on the other side has gone
            while data := os.read(self.controller, 65536):
                self.text += data.decode(errors="replace")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    terminal.start()
    yield terminal
    os.close(terminal.side)
    terminal.join()
    os.close(terminal.controller)


def test_ctrl_c_three_times_leaves_no_process_and_the_terminal_as_it_was(terminal: Terminal) -> None:
    folder = create(5000)
    settings = termios.tcgetattr(terminal.side)
    words = ["setsid", "--ctty", *AGENT]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        words, stdin=terminal.side, stdout=terminal.side, stderr=terminal.side, env=environment
    ) as agent:
        try:
            until(lambda: len(epochs_in(folder)) >= 1)
            family = {agent.pid} | descendants(agent.pid)
            for said in ("no new trials; 1 running will finish", "writing checkpoints", "killing the trials"):
                os.write(terminal.controller, b"\x03")
                # Each counts only once the one before was heard; the third may come too late to be said.
                until(lambda said=said: said in terminal.text or agent.poll() is not None)
            assert agent.wait(timeout=120) == 130
        finally:
            agent.kill()
    until(lambda: not any(alive(pid) for pid in family))
    until(lambda: "next: fersweep agent" in terminal.text)
    assert termios.tcgetattr(terminal.side) == settings
    assert "Traceback" not in terminal.text
    assert terminal.text.count("\x1b[?25l") <= terminal.text.count("\x1b[?25h"), "the cursor is still hidden"
    assert not re.search(r"\x1b\[\?1049h(?!.*\x1b\[\?1049l)", terminal.text, re.DOTALL), "still on the other screen"
    assert state_of_trial() == "preempted"


@pytest.mark.process
@pytest.mark.parametrize(
    ("number", "while_torch_is_imported"),
    [
        *((number, False) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)),
        *((number, True) for number in (signal.SIGINT, signal.SIGTERM)),
    ],
)
def test_a_signal_to_the_whole_group_checkpoints(number: signal.Signals, while_torch_is_imported: bool) -> None:
    """What scancel, `timeout` and a closed terminal do: agent, forkserver and trials all get it."""
    folder = create(3 if while_torch_is_imported else 5000)
    with started(AGENT, stdout=subprocess.DEVNULL) as agent:
        if while_torch_is_imported:
            kinds = ("forkserver", "multiprocessing.spawn")
            until(lambda: any(kind in words_of(pid) for pid in descendants(agent.pid) for kind in kinds))
        else:
            until(lambda: len(epochs_in(folder)) >= 2)
        family = {agent.pid} | descendants(agent.pid)
        os.killpg(agent.pid, number)
        said = agent.communicate()[1].decode()
    assert agent.returncode == 130, said
    assert "Traceback" not in said
    until(lambda: not any(alive(pid) for pid in family))
    if not while_torch_is_imported:
        assert state_of_trial() == "preempted"
        assert (folder / "last.ckpt").is_file()


@pytest.mark.process
def test_a_reader_that_leaves_does_not_end_the_sweep() -> None:
    create(20)
    with started(AGENT, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None and agent.stderr is not None
        agent.stdout.readline()
        agent.stdout.close()
        said = agent.stderr.read().decode()
    assert agent.returncode == 0, said
    assert state_of_trial() == "complete"


@pytest.mark.process
def test_ctrl_c_in_training_by_hand_writes_a_checkpoint_to_resume_from() -> None:
    words = ["train", "--model=simple_cnn", "--data=tiny", "--epochs=80", "--channels=4", "--hidden=8", "--device=cpu"]
    words += ["--batch-size=16", "--folder=by-hand"]
    with started([*COMMAND, *words]) as training:
        assert training.stderr is not None
        next(line for line in training.stderr if line.startswith(b"epoch 3/"))
        training.send_signal(signal.SIGINT)
        rest = training.stderr.read().decode()
    assert training.returncode == 130
    assert "next: fersweep train --config" in rest
    assert Path("by-hand/last.ckpt").is_file()
    done = fersweep(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert epochs_in(Path("by-hand")) == list(range(1, 81))
