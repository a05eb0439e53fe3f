"""An agent that is paused for longer than its leases last, and comes back to find its trial with another one."""

import contextlib
import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, SWEEP, alive, descendants, fersweep, until

pytestmark = [
    pytest.mark.usefixtures("tiny_data", "one_core"),
    pytest.mark.skipif(sys.platform != "linux", reason="takes a process's identity from /proc"),
]


NOTHING_TO_DO = 3


def is_locked(database: Path) -> bool:
    with contextlib.closing(sqlite3.connect(database, timeout=0.0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def epochs(history: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in history.read_text().splitlines() if line.endswith("}")]


@pytest.mark.parametrize("paused", ["agent", "everything"])
def test_the_new_owner_ends_what_the_former_one_still_trains(
    paused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERSWEEP_LEASE_S", "2")
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "100"))
    sweep = fersweep("create", "sweep.yaml").stdout.strip()
    folder = tmp_path / ".fersweep" / "sweeps" / sweep / "trials" / "0"
    history = folder / "history.jsonl"
    said = tmp_path / "former.txt"
    words = [*COMMAND, "agent", "--gpus", "none"]
    with said.open("w") as output:
        former = subprocess.Popen(words, stdout=output, stderr=output, process_group=0)
    try:
        until(lambda: history.is_file() and len(epochs(history)) >= 3)
        family = descendants(former.pid)
        # Its trial goes on where only the agent is paused.
        pause = former.send_signal if paused == "agent" else functools.partial(os.killpg, former.pid)
        pause(signal.SIGSTOP)
        while is_locked(tmp_path / ".fersweep" / "sweeps.db"):  # nobody gets past a writer stopped in the middle
            pause(signal.SIGCONT)
            pause(signal.SIGSTOP)
        while (new := fersweep("agent", "--gpus", "none")).returncode == NOTHING_TO_DO:
            assert alive(former.pid)  # and its lease has not run out
        assert new.returncode == 0, new.stderr + new.stdout
        assert alive(former.pid)
        os.killpg(former.pid, signal.SIGCONT)
        assert former.wait(timeout=60) in (0, 3), said.read_text()
    finally:
        if former.poll() is None:
            os.killpg(former.pid, signal.SIGKILL)
            former.wait()
    assert "Traceback" not in said.read_text()
    until(lambda: not any(alive(pid) for pid in family))
    assert epochs(history) == list(range(1, 101))
    (trial,) = json.loads(fersweep("status", "--json").stdout)["trials"]
    assert trial["state"] == "complete"
