"""What a host runs out of: disk, open files, a folder that can be written."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, SWEEP, fersweep

pytestmark = [
    pytest.mark.process,
    pytest.mark.usefixtures("tiny_data", "one_core"),
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces and limits as Linux has them"),
]


def may_mount() -> bool:
    """Whether a file system can be mounted, in a mount namespace of a process's own."""
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(words, capture_output=True, check=False).returncode == 0


def on_small_disk(script: str, *, size: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script where `disk`, in the working directory, is a file system of that size."""
    if not may_mount():
        pytest.skip("no file system can be mounted here: user namespaces are switched off")
    (cwd / "disk").mkdir()
    run = " ".join(f"'{word}'" for word in COMMAND)
    lines = [f"mount -t tmpfs -o size={size} tmpfs disk", f'fersweep() {{ {run} "$@"; }}', script]
    environment = {**os.environ, "FERSWEEP_HOME": str(cwd / "disk")}
    return subprocess.run(
        ["unshare", "-rm", "bash", "-euc", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
    )


def test_a_disk_that_fills_up_while_a_trial_trains_ends_the_agent_and_loses_no_epoch(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "120").replace("run_cap: 1", "run_cap: 2"))
    script = """
        sweep=$(fersweep create sweep.yaml)
        fersweep agent --gpus none > full.txt 2>&1 &
        agent=$!
        until [ -s "disk/sweeps/$sweep/trials/0/last.ckpt" ]; do sleep 0.05; done
        head -c 100M /dev/zero > disk/filler 2>/dev/null || true
        wait $agent && exit 9
        echo "$?" > full.code
        fersweep agent --gpus none >> full.txt 2>&1 && exit 9  # there is no room from its start
        echo "$?" >> full.code
        rm disk/filler
        fersweep agent --gpus none > room.txt 2>&1
        fersweep status --json > status.json
        cp -r disk kept
    """
    done = on_small_disk(script, size="8M", cwd=tmp_path)
    said = (tmp_path / "full.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + said
    assert (tmp_path / "full.code").read_text().split() == ["1", "1"]
    assert "Traceback" not in said
    assert "full" in said or "No space left" in said
    assert "run the same command again" in said.replace("\n", " ") or "then run it again" in said.replace("\n", " ")
    with contextlib.closing(sqlite3.connect(tmp_path / "kept" / "sweeps.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for trial in json.loads((tmp_path / "status.json").read_text())["trials"]:
        assert trial["state"] == "complete"
        (history,) = (tmp_path / "kept").glob(f"sweeps/*/trials/{trial['id']}/history.jsonl")
        assert [json.loads(line)["epoch"] for line in history.read_text().splitlines()] == list(range(1, 121))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "3"))
    script = """
        fersweep create sweep.yaml
        mount -o remount,ro disk
        for words in "create sweep.yaml" "agent --gpus none"; do
            fersweep $words > said.txt 2>&1 && exit 9
            echo "$? $words"; cat said.txt
        done
        mount -o remount,rw disk
        fersweep agent --gpus none > /dev/null 2>&1
        fersweep status --json > status.json
    """
    done = on_small_disk(script, size="8M", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    assert done.stdout.count("1 create") == done.stdout.count("1 agent") == 1
    assert "writable" in done.stdout
    assert json.loads((tmp_path / "status.json").read_text())["trials"][0]["state"] == "complete"


def test_too_few_open_files_end_the_agent_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("EPOCHS", "3"))
    assert fersweep("create", "sweep.yaml").returncode == 0
    words = ["sh", "-c", 'ulimit -n 16 && exec "$@"', "sh", *COMMAND, "agent", "--gpus", "none"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "ulimit -n" in done.stdout + done.stderr
