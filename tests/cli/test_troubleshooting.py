"""Each message in the table of messages is provoked, and must be printed as it stands there."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.worker.starters import starter_for
from tests.cli.conftest import write_sweep
from tests.faults.test_resources import on_small_disk
from tests.support.documentation import REPOSITORY, rows
from tests.support.ray_nodes import missing
from tests.support.scripted_starter import ScriptedStarter
from tests.support.searches import read_only
from tests.support.shell import Shell
from tests.support.standin.server import StandIn

DIFFERS = re.compile(r"\b(VERSION|FOLDER|NAMES|ID|NUMBER|REASON|ADDRESS|FILE|KIND)\b")
MESSAGES = [row[0].strip("`") for row in rows("it says")]
WRONG_KEY = "local-" + "7" * 40


@dataclass(frozen=True)
class Host:
    """Where a message is provoked: with a small sweep file, trials that are played, and a W&B server."""

    shell: Shell
    patch: pytest.MonkeyPatch
    starter: ScriptedStarter
    server: StandIn

    def run(self, *commands: str) -> str:
        """Run commands, which may begin with variables; the last one fails, and what it says is returned."""
        codes = []
        for command in commands:
            words = command.format(server=self.server.url, key=self.server.api_key).split()
            while "=" in words[0]:
                self.patch.setenv(*words.pop(0).split("="))
            code, _, err = self.shell(*words)
            codes.append(code)
        assert not any(codes[:-1]) and codes[-1] in (1, 2, 3), err
        return err


@pytest.fixture
def host(shell, monkeypatch, played_trials, tiny_data, standin):
    sweep = Path(write_sweep(trials=2, epochs=1)).read_text()
    Path("misspelt.yaml").write_text(sweep.replace("channels", "chanels").replace("best_val_acc", "val_accuracy"))
    Path("strange").mkdir()
    Path("strange/notes.docx").touch()
    monkeypatch.setattr("fer_sweep.wandb_client.transport._LONGEST_WAIT_S", 0.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # where there are GPUs, none
    return Host(shell, monkeypatch, played_trials, standin)


CREATE, AGENT = "create sweep.yaml", "agent --gpus none"
LOG_IN = "WANDB_MODE=online WANDB_BASE_URL={server} WANDB_API_KEY="
COMMANDS = {
    "no data set 'fer2013'": (f"{CREATE} --data fer2013", AGENT),
    "FOLDER: no data set that fersweep knows": ("data prepare strange",),
    "parameters.chanels": ("validate misspelt.yaml",),
    "metric.name": ("validate misspelt.yaml",),
    "gpus 0": (CREATE, "agent --gpus 0"),
    "gpus mps": (CREATE, "agent --gpus mps"),
    "no trial has a result yet": (CREATE, "best"),
    "sweep ID is finished": (CREATE, AGENT, AGENT),
    "sweep ID is stopped": (CREATE, "stop", AGENT),
    "no API key": (f"WANDB_MODE=online {CREATE}",),
    "the W&B server ADDRESS does not know": (f"{LOG_IN}{WRONG_KEY} {CREATE}",),
    "FILE is read-only": (f"FERSWEEP_HOME=/sys/fersweep {CREATE}",),
    "no answer from the W&B server": (f"{LOG_IN}{WRONG_KEY} WANDB_BASE_URL=http://127.0.0.1:9 {CREATE}",),
    "the W&B server that searches": (f"{LOG_IN}{{key}} {CREATE}", f"WANDB_MODE=offline {AGENT}"),
}
"""By the beginning of a message, the commands of which the last one prints it."""


def every_trial_fails(host: Host) -> str:
    host.starter.script = lambda trial: TrialOutcome(TrialState.FAILED, reason="no such weights")
    said = host.run(CREATE, f"{AGENT} --slots 1")
    assert "no such weights" in said and "trial.log" in said
    return said


def on_a_network_file_system(host: Host) -> str:
    # A test cannot mount NFS, but it can say so where the kernel does.
    disk = SimpleNamespace(mountpoint="/", fstype="nfs4")
    host.patch.setattr("psutil.disk_partitions", lambda all: [disk])
    return host.run(CREATE)


def pools_on_windows(host: Host) -> str:
    assert host.shell(*CREATE.split())[0] == 0
    host.patch.setattr(sys, "platform", "win32")
    return host.run("agent --pool agents/local.yaml")


def an_unknown_start(host: Host) -> str:
    host.patch.setattr("fer_sweep.agent.session.starter_for", starter_for)
    return host.run(CREATE, f"FERSWEEP_START=fork {AGENT}")


def read_only_home(host: Host) -> str:
    assert host.shell(*CREATE.split())[0] == 0
    read_only(Path(".fersweep/sweeps.db").absolute())
    return host.run("pause")


def no_home(host: Host) -> str:
    host.patch.setenv("FERSWEEP_HOME", "~no-such-user/sweeps")
    return host.run(CREATE)


def locked_database(host: Host) -> str:
    assert host.shell(*CREATE.split())[0] == 0
    host.patch.setattr("fer_sweep.store.engine.LOCK_TIMEOUT_S", 0.05)
    with contextlib.closing(sqlite3.connect(".fersweep/sweeps.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        return host.run("pause")


def old_python(host: Host) -> str:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, name)
    Path("bin").mkdir()
    # No older Python can be counted on; this one says it is.
    code = "import sys; sys.version_info = (3, 10, 14); exec(sys.argv[2])"
    Path("bin/python3").write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n")
    Path("bin/python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}", "MAKEFLAGS": ""}
    done = subprocess.run(["make", "sweep"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and not Path(".venv").exists()
    assert "make PYTHON=python3.12 sweep" in done.stderr
    return done.stderr


def no_ray(host: Host) -> str:
    if reason := missing():
        pytest.skip(reason)
    Path("pool.yaml").write_text("kind: ray\naddress: 127.0.0.1:9\n")
    return host.run(CREATE, "agent --pool pool.yaml")


def full_disk_under_the_database(host: Host) -> str:
    return on_full_disk(f"fersweep {CREATE}", before=f"fersweep {CREATE}")


def full_disk_elsewhere(host: Host) -> str:
    for command in (CREATE, AGENT):
        assert host.shell(*command.split())[0] == 0
    return on_full_disk(f"FERSWEEP_HOME='{Path('.fersweep').absolute()}' fersweep report --format csv -o disk/r.csv")


def on_full_disk(command: str, *, before: str = "true") -> str:
    script = f"{before}\nhead -c 100M /dev/zero > disk/filler 2>/dev/null || true\n{command} && exit 9 || exit 0\n"
    done = on_small_disk(script, size="4M", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    return done.stderr


MAKE = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
PROVOKED = [
    *(pytest.param(beginning, lambda host, words=words: host.run(*words)) for beginning, words in COMMANDS.items()),
    pytest.param("NUMBER trials failed", every_trial_fails),
    pytest.param("pools start no agents on Windows yet", pools_on_windows),
    pytest.param("FERSWEEP_START=KIND", an_unknown_start),
    pytest.param("FILE is on a network file system", on_a_network_file_system),
    pytest.param("FILE is read-only", read_only_home),
    pytest.param("this user has no home folder", no_home),
    pytest.param("FILE: database is locked", locked_database),
    pytest.param("fersweep needs Python 3.11", old_python, marks=MAKE),
    pytest.param("cannot connect to Ray at ADDRESS", no_ray, marks=pytest.mark.cluster),
    pytest.param("FILE: disk I/O error", full_disk_under_the_database, marks=pytest.mark.process),
    pytest.param("cannot write FILE", full_disk_elsewhere, marks=pytest.mark.process),
]


def test_every_documented_message_is_provoked():
    beginnings = tuple(str(provoked.values[0]) for provoked in PROVOKED)
    others = [message for message in MESSAGES if not message.startswith(beginnings)]
    assert others == ["fersweep: command not found"], "which is the shell's"


@pytest.mark.parametrize(("beginning", "provoke"), PROVOKED)
def test_a_message_is_printed_as_documented(beginning, provoke, host):
    (message,) = [message for message in MESSAGES if message.startswith(beginning)]
    said = provoke(host)
    pattern = r"(^|: )" + DIFFERS.sub(".+", re.escape(message))
    assert re.search(pattern, said, flags=re.MULTILINE), said
    assert "hint: " in said or "did you mean" in said or "error: " not in said
    assert "Traceback" not in said and WRONG_KEY not in said
