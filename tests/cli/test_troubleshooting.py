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
from fer_sweep.search.database import Database
from tests.cli.conftest import write_sweep
from tests.faults.test_resources import on_small_disk
from tests.support.documentation import REPOSITORY, rows
from tests.support.ray_nodes import missing
from tests.support.scripted_starter import ScriptedStarter
from tests.support.shell import Shell
from tests.support.standin.server import StandIn

DIFFERS = re.compile(r"\b(VERSION|FOLDER|NAMES|ID|NUMBER|REASON|ADDRESS|FILE|KIND)\b")
LOCAL_KEY = "local-" + "7" * 40
MESSAGES = [row[0].strip("`") for row in rows("it says")]


@dataclass(frozen=True)
class Host:
    """Where a message is provoked."""

    shell: Shell
    patch: pytest.MonkeyPatch
    starter: ScriptedStarter

    def said(self, *words: str) -> str:
        """What a command that fails says."""
        code, _, err = self.shell(*words)
        assert code in (1, 2, 3), err
        return err

    def do(self, *words: str) -> None:
        code, _, err = self.shell(*words)
        assert code == 0, err


@pytest.fixture
def host(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, played_trials: ScriptedStarter, tiny_data: str, own_folders: Path
) -> Host:
    """With a small sweep file."""
    write_sweep(trials=2, epochs=1)
    return Host(shell, monkeypatch, played_trials)


Provoke = Callable[[Host], str]
PROVOKED: dict[str, tuple[Provoke, list[pytest.MarkDecorator]]] = {}


def provokes(beginning: str, *marks: pytest.MarkDecorator) -> Callable[[Provoke], Provoke]:
    """Registers how to have the message printed that begins so."""

    def register(function: Provoke) -> Provoke:
        (message,) = [known for known in MESSAGES if known.startswith(beginning)]
        PROVOKED[message] = (function, list(marks))
        return function

    return register


@provokes("fersweep: command not found", pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed"))
def not_on_the_path(host: Host) -> str:
    words = [shutil.which("bash") or "", "--norc", "-c", "fersweep; exit"]
    return subprocess.run(words, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False).stderr


@provokes("fersweep needs Python 3.11", pytest.mark.skipif(not shutil.which("make"), reason="make is not installed"))
def old_python(host: Host) -> str:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, name)
    old = Path("bin", "python3")
    old.parent.mkdir()
    # No older Python can be counted on; this one says it is.
    code = "import sys; sys.version_info = (3, 10, 14); exec(sys.argv[2])"
    old.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n")
    old.chmod(0o755)
    environment = {**os.environ, "PATH": f"{old.parent.absolute()}:{os.environ['PATH']}", "MAKEFLAGS": ""}
    done = subprocess.run(["make", "sweep"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and not Path(".venv").exists()
    assert "make PYTHON=python3.12 sweep" in done.stderr
    return done.stderr


@provokes("no data set 'fer2013'")
def no_data(host: Host) -> str:
    host.do("create", "sweep.yaml", "--data", "fer2013")
    said = host.said("agent", "--gpus", "none")
    assert "fersweep data prepare" in said
    return said


@provokes("FOLDER: no data set that fersweep knows")
def unknown_layout(host: Host) -> str:
    Path("faces").mkdir()
    Path("faces", "notes.docx").write_text("no faces")
    return host.said("data", "prepare", "faces")


@provokes("parameters.chanels")
def misspelt_parameter(host: Host) -> str:
    Path("misspelt.yaml").write_text(Path("sweep.yaml").read_text().replace("channels", "chanels"))
    return host.said("validate", "misspelt.yaml")


@provokes("metric.name")
def misspelt_metric(host: Host) -> str:
    Path("misspelt.yaml").write_text(Path("sweep.yaml").read_text().replace("best_val_acc", "val_accuracy"))
    return host.said("validate", "misspelt.yaml")


@provokes("--gpus 0")
def no_gpu(host: Host) -> str:
    host.do("create", "sweep.yaml")
    host.patch.setenv("CUDA_VISIBLE_DEVICES", "")  # where there are some, none
    said = host.said("agent", "--gpus", "0")
    assert "--gpus none" in said and "nvidia-smi" in said
    return said


@provokes("no trial has a result yet")
def nothing_to_choose_from(host: Host) -> str:
    host.do("create", "sweep.yaml")
    return host.said("best")


@provokes("sweep ID is finished")
def finished_sweep(host: Host) -> str:
    host.do("create", "sweep.yaml")
    host.do("agent", "--gpus", "none")
    return host.said("agent", "--gpus", "none")


@provokes("sweep ID is stopped")
def stopped_sweep(host: Host) -> str:
    host.do("create", "sweep.yaml")
    host.do("stop")
    return host.said("agent", "--gpus", "none")


@provokes("NUMBER trials failed")
def every_trial_fails(host: Host) -> str:
    host.starter.script = lambda trial: TrialOutcome(TrialState.FAILED, reason="no such weights")
    host.do("create", "sweep.yaml")
    said = host.said("agent", "--gpus", "none", "--slots", "1")
    assert "no such weights" in said and "trial.log" in said
    return said


@provokes("no API key")
def not_logged_in(host: Host) -> str:
    host.patch.setenv("WANDB_MODE", "online")
    said = host.said("create", "sweep.yaml")
    assert "wandb login" in said and "--search optuna" in said
    return said


def log_in(host: Host, address: str, key: str) -> None:
    for name, value in {"MODE": "online", "API_KEY": key, "BASE_URL": address}.items():
        host.patch.setenv(f"WANDB_{name}", value)


@provokes("the W&B server ADDRESS does not know")
def wrong_key(host: Host) -> str:
    with StandIn() as server:
        log_in(host, server.url, LOCAL_KEY)
        said = host.said("create", "sweep.yaml")
    assert "wandb login --relogin" in said
    return said


@provokes("no answer from the W&B server")
def no_server(host: Host) -> str:
    host.patch.setattr("fer_sweep.search.wandb_transport._LONGEST_WAIT_S", 0.0)
    log_in(host, "http://127.0.0.1:9", LOCAL_KEY)
    return host.said("create", "sweep.yaml")


@provokes("the W&B server that searches")
def runs_are_offline(host: Host) -> str:
    with StandIn() as server:
        log_in(host, server.url, server.api_key)
        host.do("create", "sweep.yaml")
        assert len(server.sweeps) == 1
        host.patch.setenv("WANDB_MODE", "offline")
        return host.said("agent", "--gpus", "none")


@provokes("no Ray answers at ADDRESS", pytest.mark.cluster)
def no_ray(host: Host) -> str:
    if reason := missing():
        pytest.skip(reason)
    host.do("create", "sweep.yaml")
    Path("pool.yaml").write_text("kind: ray\naddress: 127.0.0.1:9\n")
    said = host.said("agent", "--pool", "pool.yaml")
    assert "ray status" in said
    return said


@provokes("FILE is on a network file system")
def on_a_network_file_system(host: Host) -> str:
    # A test cannot mount NFS, but it can say so where the kernel does.
    Path("mountinfo").write_text("1 0 8:1 / / rw - nfs4 server:/home rw\n")
    host.patch.setattr(mounts, "MOUNTINFO", Path("mountinfo").absolute())
    return host.said("create", "sweep.yaml")


@provokes("FILE: database is locked")
def locked_database(host: Host) -> str:
    host.do("create", "sweep.yaml")
    defaults = Database.__init__.__kwdefaults__ or {}
    assert "lock_timeout_s" in defaults
    host.patch.setitem(defaults, "lock_timeout_s", 0.05)
    with contextlib.closing(sqlite3.connect(".fersweep/sweeps.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = host.said("pause")
    assert f"process {os.getpid()} holds the database" in said
    return said


@provokes("FILE: disk I/O error", pytest.mark.process)
def full_disk_under_the_database(host: Host) -> str:
    said = on_full_disk(before="fersweep create sweep.yaml", command="fersweep create sweep.yaml")
    assert "hint: the disk is full" in said
    return said


@provokes("cannot write FILE", pytest.mark.process)
def full_disk_elsewhere(host: Host) -> str:
    host.do("create", "sweep.yaml")
    host.do("agent", "--gpus", "none")
    home = Path(".fersweep").absolute()
    return on_full_disk(
        before="true", command=f"FERSWEEP_HOME='{home}' fersweep report --format csv -o disk/report.csv"
    )


def on_full_disk(*, before: str, command: str) -> str:
    script = f"{before}\nhead -c 100M /dev/zero > disk/filler 2>/dev/null || true\n{command} && exit 9 || exit 0\n"
    done = on_small_disk(script, size="4M", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_every_message_is_provoked() -> None:
    assert set(PROVOKED) == set(MESSAGES)
    assert len(MESSAGES) >= 20


@pytest.mark.parametrize(
    ("message", "provoke"),
    [pytest.param(message, provoke, id=message, marks=marks) for message, (provoke, marks) in PROVOKED.items()],
)
def test_a_message_is_printed_as_documented(message: str, provoke: Provoke, host: Host) -> None:
    said = provoke(host)
    pattern = r"(^|: )" + DIFFERS.sub(".+", re.escape(message))
    assert re.search(pattern, said, flags=re.MULTILINE), said
    assert "Traceback" not in said
