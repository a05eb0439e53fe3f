"""Each message in the table of messages is provoked, and must be printed as it stands there."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fer_sweep import mounts
from fer_sweep.records import TrialOutcome, TrialState
from fer_sweep.store.database import Database
from tests.cli.conftest import write_sweep
from tests.faults.test_resources import on_small_disk
from tests.support.documentation import REPOSITORY, rows
from tests.support.ray_nodes import missing
from tests.support.scripted_starter import ScriptedStarter
from tests.support.shell import Shell
from tests.support.standin.server import StandIn

DIFFERS = re.compile(r"\b(VERSION|FOLDER|NAMES|ID|NUMBER|REASON|ADDRESS|FILE|KIND)\b")
MESSAGES = [row[0].strip("`") for row in rows("it says")]
WRONG_KEY = "local-" + "7" * 40


@dataclass(frozen=True)
class Host:
    """Where a message is provoked: with a small sweep file, and trials that are played."""

    shell: Shell
    patch: pytest.MonkeyPatch
    starter: ScriptedStarter

    def run(self, *commands: str) -> str:
        """Run commands of which the last one fails; gives what it says."""
        for command in commands[:-1]:
            code, _, err = self.shell(*command.split())
            assert code == 0, err
        code, _, err = self.shell(*commands[-1].split())
        assert code in (1, 2, 3), err
        return err

    def log_in(self, address: str, key: str) -> None:
        for name, value in {"MODE": "online", "API_KEY": key, "BASE_URL": address}.items():
            self.patch.setenv(f"WANDB_{name}", value)


@pytest.fixture
def host(shell: Shell, monkeypatch: pytest.MonkeyPatch, played_trials: ScriptedStarter, tiny_data: str) -> Host:
    sweep = Path(write_sweep(trials=2, epochs=1)).read_text()
    Path("misspelt.yaml").write_text(sweep.replace("channels", "chanels").replace("best_val_acc", "val_accuracy"))
    Path("strange").mkdir()
    Path("strange/notes.docx").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # where there are GPUs, none
    return Host(shell, monkeypatch, played_trials)


CREATE, AGENT = "create sweep.yaml", "agent --gpus none"
COMMANDS = {
    "no data set 'fer2013'": (f"{CREATE} --data fer2013", AGENT),
    "FOLDER: no data set that fersweep knows": ("data prepare strange",),
    "parameters.chanels": ("validate misspelt.yaml",),
    "metric.name": ("validate misspelt.yaml",),
    "--gpus 0": (CREATE, "agent --gpus 0"),
    "no trial has a result yet": (CREATE, "best"),
    "sweep ID is finished": (CREATE, AGENT, AGENT),
    "sweep ID is stopped": (CREATE, "stop", AGENT),
}
"""By the beginning of a message, the commands of which the last one prints it."""


def every_trial_fails(host: Host) -> str:
    host.starter.script = lambda trial: TrialOutcome(TrialState.FAILED, reason="no such weights")
    said = host.run(CREATE, f"{AGENT} --slots 1")
    assert "no such weights" in said and "trial.log" in said
    return said


def not_logged_in(host: Host) -> str:
    host.patch.setenv("WANDB_MODE", "online")
    return host.run(CREATE)


def wrong_key(host: Host) -> str:
    with StandIn() as server:
        host.log_in(server.url, WRONG_KEY)
        return host.run(CREATE)


def no_server(host: Host) -> str:
    host.patch.setattr("fer_sweep.wandb_client.transport._LONGEST_WAIT_S", 0.0)
    host.log_in("http://127.0.0.1:9", WRONG_KEY)
    return host.run(CREATE)


def runs_are_offline(host: Host) -> str:
    with StandIn() as server:
        host.log_in(server.url, server.api_key)
        assert host.shell(*CREATE.split())[0] == 0
        host.patch.setenv("WANDB_MODE", "offline")
        return host.run(AGENT)


def on_a_network_file_system(host: Host) -> str:
    # A test cannot mount NFS, but it can say so where the kernel does.
    Path("mountinfo").write_text("1 0 8:1 / / rw - nfs4 server:/home rw\n")
    host.patch.setattr(mounts, "MOUNTINFO", Path("mountinfo").absolute())
    return host.run(CREATE)


def locked_database(host: Host) -> str:
    defaults = Database.__init__.__kwdefaults__ or {}
    assert "lock_timeout_s" in defaults
    assert host.shell(*CREATE.split())[0] == 0
    host.patch.setitem(defaults, "lock_timeout_s", 0.05)
    with contextlib.closing(sqlite3.connect(".fersweep/sweeps.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = host.run("pause")
    assert f"process {os.getpid()} holds the database" in said
    return said


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


def not_on_the_path(host: Host) -> str:
    words = [shutil.which("bash") or "", "--norc", "-c", "fersweep; exit"]
    return subprocess.run(words, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False).stderr


def no_ray(host: Host) -> str:
    if reason := missing():
        pytest.skip(reason)
    Path("pool.yaml").write_text("kind: ray\naddress: 127.0.0.1:9\n")
    return host.run(CREATE, "agent --pool pool.yaml")


def full_disk_under_the_database(host: Host) -> str:
    return on_full_disk("fersweep create sweep.yaml", before="fersweep create sweep.yaml")


def full_disk_elsewhere(host: Host) -> str:
    for command in (CREATE, AGENT):
        assert host.shell(*command.split())[0] == 0
    return on_full_disk(f"FERSWEEP_HOME='{Path('.fersweep').absolute()}' fersweep report --format csv -o disk/r.csv")


def on_full_disk(command: str, *, before: str = "true") -> str:
    script = f"{before}\nhead -c 100M /dev/zero > disk/filler 2>/dev/null || true\n{command} && exit 9 || exit 0\n"
    done = on_small_disk(script, size="4M", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    return done.stderr


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


FUNCTIONS: dict[str, Callable[[Host], str]] = {
    "NUMBER trials failed": every_trial_fails,
    "no API key": not_logged_in,
    "the W&B server ADDRESS does not know": wrong_key,
    "no answer from the W&B server": no_server,
    "the W&B server that searches": runs_are_offline,
    "FILE is on a network file system": on_a_network_file_system,
    "FILE: database is locked": locked_database,
    "fersweep needs Python 3.11": old_python,
    "fersweep: command not found": not_on_the_path,
    "no Ray answers at ADDRESS": no_ray,
    "FILE: disk I/O error": full_disk_under_the_database,
    "cannot write FILE": full_disk_elsewhere,
}
"""Those that commands alone do not provoke."""
MARKS = {no_ray: pytest.mark.cluster, full_disk_under_the_database: pytest.mark.process}
MARKS |= {full_disk_elsewhere: pytest.mark.process, old_python: needs("make"), not_on_the_path: needs("bash")}


def test_every_documented_message_is_provoked() -> None:
    assert len(MESSAGES) >= 20
    beginnings = (*COMMANDS, *FUNCTIONS)
    assert [message for message in MESSAGES if not message.startswith(beginnings)] == []


@pytest.mark.parametrize(
    ("beginning", "provoke"),
    [
        *((beginning, lambda host, words=words: host.run(*words)) for beginning, words in COMMANDS.items()),
        *(pytest.param(beginning, f, marks=MARKS.get(f, ())) for beginning, f in FUNCTIONS.items()),
    ],
)
def test_a_message_is_printed_as_documented(beginning: str, provoke: Callable[[Host], str], host: Host) -> None:
    (message,) = [message for message in MESSAGES if message.startswith(beginning)]
    said = provoke(host)
    pattern = r"(^|: )" + DIFFERS.sub(".+", re.escape(message))
    assert re.search(pattern, said, flags=re.MULTILINE), said
    assert "hint: " in said or "did you mean" in said or "error: " not in said
    assert "Traceback" not in said
