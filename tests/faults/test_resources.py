"""A disk that fills up under a real agent."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import COMMAND, SWEEP

pytestmark = [
    pytest.mark.process,
    pytest.mark.usefixtures("tiny_data", "one_core"),
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces and limits as Linux has them"),
]


def on_small_disk(script: str, *, size: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script where `disk`, in the working directory, is a file system of that size."""
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
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
        rm disk/filler
        fersweep agent --gpus none > room.txt 2>&1
        fersweep status --json > status.json
        cp -r disk kept
    """
    done = on_small_disk(script, size="8M", cwd=tmp_path)
    said = (tmp_path / "full.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + said
    assert "Traceback" not in said
    assert "full" in said or "No space left" in said
    assert "run the same command again" in said.replace("\n", " ") or "then run it again" in said.replace("\n", " ")
    with contextlib.closing(sqlite3.connect(tmp_path / "kept" / "sweeps.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for trial in json.loads((tmp_path / "status.json").read_text())["trials"]:
        assert trial["state"] == "complete"
        (history,) = (tmp_path / "kept").glob(f"sweeps/*/trials/{trial['id']}/history.jsonl")
        assert [json.loads(line)["epoch"] for line in history.read_text().splitlines()] == list(range(1, 121))
