"""Commands in the cells of a notebook: a pseudo-terminal that draws nothing anew, or a pipe with FORCE_COLOR."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, SWEEP, fersweep

pytestmark = pytest.mark.usefixtures("one_core")

MOVES = (b"\x1b[1A", b"\x1b[2K", b"\x1b[?25l", b"\r\x1b")
"""What a live table moves the cursor by."""


def in_a_terminal(words: list[str]) -> bytes:
    """What a command writes to a pseudo-terminal, as IPython and Colab give one to `!commands`."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *words], stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL) as command:
        os.close(theirs)
        said = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux's way to say that nobody has the other end any more
                break
            if not chunk:
                break
            said += chunk
    os.close(ours)
    assert command.returncode == 0, said
    return said


@pytest.mark.parametrize("is_notebook", [True, False])
def test_a_notebooks_terminal_gets_plain_lines_and_a_real_one_a_table(
    is_notebook: bool, tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JPY_PARENT_PID", "COLAB_RELEASE_TAG", "COLAB_JUPYTER_IP", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    if is_notebook:
        monkeypatch.setenv("JPY_PARENT_PID", "7")
    monkeypatch.setenv("TERM", "xterm-color")
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "40"))
    fersweep("create", "sweep.yaml")
    said = in_a_terminal(["agent", "--gpus", "none"])
    assert any(move in said for move in MOVES) != is_notebook
    if is_notebook:
        assert b"trial 0 complete" in said
        assert said.count(b"\n") < 20


def test_force_color_makes_no_terminal_of_a_pipe(
    tiny_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "2"))
    fersweep("create", "sweep.yaml")
    done = fersweep("agent", "--gpus", "none")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "trial 0 complete" in done.stdout
