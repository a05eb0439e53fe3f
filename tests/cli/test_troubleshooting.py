"""What the README says of a message is said of one that is really printed: each is provoked, and compared."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fer_sweep import mounts
from fer_sweep.search.database import Database
from tests.cli.conftest import Shell
from tests.faults.test_resources import on_small_disk
from tests.support.processes import SWEEP
from tests.support.ray_nodes import missing
from tests.support.standin.server import StandIn
from tests.test_readme import REPOSITORY, SECTIONS

pytestmark = pytest.mark.usefixtures("one_core")

ROWS = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", SECTIONS["When something goes wrong"], flags=re.MULTILINE))
DIFFERS = re.compile(r"\b(VERSION|FOLDER|NAMES|ID|NUMBER|REASON|ADDRESS|FILE|KIND)\b")
LOCAL_KEY = "local-" + "7" * 40
PROVOKED: dict[str, Callable[[pytest.FixtureRequest], str]] = {}

Provoke = Callable[[pytest.FixtureRequest], str]


def provokes(beginning: str) -> Callable[[Provoke], Provoke]:
    """Registers how to make fersweep print the message that begins so."""

    def register(function: Provoke) -> Provoke:
        (message,) = [row for row in ROWS if row.startswith(beginning)]
        PROVOKED[message] = function
        return function

    return register


@pytest.mark.parametrize("message", ROWS)
def test_a_message_of_the_readme_is_printed_as_it_stands_there(message: str, request: pytest.FixtureRequest) -> None:
    said = PROVOKED[message](request)
    pattern = r"(^|: )" + DIFFERS.sub(".+", re.escape(message))
    assert re.search(pattern, said, flags=re.MULTILINE), said
    assert "Traceback" not in said


def _said(request: pytest.FixtureRequest, *words: str) -> str:
    """What a command that fails says."""
    shell: Shell = request.getfixturevalue("shell")
    code, _, err = shell(*words)
    assert code in (1, 2, 3), err
    return err


def _create(request: pytest.FixtureRequest, *words: str) -> None:
    request.getfixturevalue("tiny_data")
    Path("small.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    code, _, err = request.getfixturevalue("shell")("create", "small.yaml", *words)
    assert code == 0, err


@provokes("fersweep: command not found")
def _no_environment(request: pytest.FixtureRequest) -> str:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    words = [bash, "--norc", "-c", "fersweep; exit"]
    return subprocess.run(words, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False).stderr


@provokes("fersweep needs Python 3.11")
def _old_python(request: pytest.FixtureRequest) -> str:
    if shutil.which("make") is None:
        pytest.skip("no make here")
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
def _no_data(request: pytest.FixtureRequest) -> str:
    _create(request, "--data", "fer2013")
    return _said(request, "agent", "--gpus", "none")


@provokes("FOLDER: no data set that fersweep knows")
def _strange_data(request: pytest.FixtureRequest) -> str:
    Path("faces").mkdir()
    Path("faces", "notes.docx").write_text("no faces")
    return _said(request, "data", "prepare", "faces")


@provokes("parameters.chanels")
def _misspelt_parameter(request: pytest.FixtureRequest) -> str:
    Path("misspelt.yaml").write_text(SWEEP.replace("EPOCHS", "1").replace("channels", "chanels"))
    return _said(request, "validate", "misspelt.yaml")


@provokes("metric.name")
def _misspelt_metric(request: pytest.FixtureRequest) -> str:
    Path("misspelt.yaml").write_text(SWEEP.replace("EPOCHS", "1").replace("best_val_acc", "val_accuracy"))
    return _said(request, "validate", "misspelt.yaml")


@provokes("--gpus 0")
def _no_gpu(request: pytest.FixtureRequest) -> str:
    _create(request)
    request.getfixturevalue("monkeypatch").setenv("CUDA_VISIBLE_DEVICES", "")  # where there are some, none
    said = _said(request, "agent", "--gpus", "0")
    assert "--gpus none" in said and "nvidia-smi" in said
    return said


@provokes("no trial has a result yet")
def _nothing_to_choose_from(request: pytest.FixtureRequest) -> str:
    _create(request)
    return _said(request, "best")


@provokes("sweep ID is finished")
def _done_already(request: pytest.FixtureRequest) -> str:
    _create(request)
    assert request.getfixturevalue("shell")("agent", "--gpus", "none")[0] == 0
    return _said(request, "agent", "--gpus", "none")


@provokes("sweep ID is stopped")
def _stopped(request: pytest.FixtureRequest) -> str:
    _create(request)
    assert request.getfixturevalue("shell")("stop")[0] == 0
    return _said(request, "agent", "--gpus", "none")


@provokes("NUMBER trials failed")
def _every_trial_fails(request: pytest.FixtureRequest) -> str:
    tiny = request.getfixturevalue("tiny_data")
    sweep = {
        "program": "fersweep",
        "method": "grid",
        "parameters": {
            "model": {"value": "vit"},
            "data": {"value": tiny},
            "pretrained": {"value": str(Path("nowhere").absolute())},
            "lr": {"values": [0.1, 0.01]},
        },
    }
    Path("failing.yaml").write_text(yaml.safe_dump(sweep))
    assert request.getfixturevalue("shell")("create", "failing.yaml")[0] == 0
    said = _said(request, "agent", "--gpus", "none", "--slots", "1")
    assert "trial.log" in said
    return said


@provokes("no API key")
def _not_logged_in(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("monkeypatch").setenv("WANDB_MODE", "online")
    Path("small.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    said = _said(request, "create", "small.yaml")
    assert "wandb login" in said and "--search optuna" in said
    return said


@provokes("the W&B server ADDRESS does not know")
def _wrong_key(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("online")
    request.getfixturevalue("monkeypatch").setenv("WANDB_API_KEY", LOCAL_KEY)
    Path("small.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    said = _said(request, "create", "small.yaml")
    assert "wandb login --relogin" in said
    return said


@provokes("no answer from the W&B server")
def _no_server(request: pytest.FixtureRequest) -> str:
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in {"MODE": "online", "API_KEY": LOCAL_KEY, "BASE_URL": "http://127.0.0.1:9"}.items():
        patch.setenv(f"WANDB_{name}", value)
    Path("small.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    return _said(request, "create", "small.yaml")


@provokes("no Ray answers at ADDRESS")
def _no_ray(request: pytest.FixtureRequest) -> str:
    if reason := missing():
        pytest.skip(reason)
    _create(request)
    Path("pool.yaml").write_text("kind: ray\naddress: 127.0.0.1:9\n")
    said = _said(request, "agent", "--pool", "pool.yaml")
    assert "ray status" in said
    return said


@provokes("the W&B server that searches")
def _runs_offline(request: pytest.FixtureRequest) -> str:
    server: StandIn = request.getfixturevalue("online")
    _create(request)
    assert len(server.sweeps) == 1
    request.getfixturevalue("monkeypatch").setenv("WANDB_MODE", "offline")
    return _said(request, "agent", "--gpus", "none")


@provokes("FILE is on a network file system")
def _on_the_network(request: pytest.FixtureRequest) -> str:
    # A test cannot mount NFS, but it can say so where the kernel does.
    Path("mountinfo").write_text("1 0 8:1 / / rw - nfs4 server:/home rw\n")
    request.getfixturevalue("monkeypatch").setattr(mounts, "MOUNTINFO", Path("mountinfo").absolute())
    Path("small.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    return _said(request, "create", "small.yaml")


@provokes("FILE: database is locked")
def _locked(request: pytest.FixtureRequest) -> str:
    _create(request)
    patience = 0.2  # seconds; a minute otherwise
    assert "lock_timeout_s" in (Database.__init__.__kwdefaults__ or {})
    request.getfixturevalue("monkeypatch").setitem(Database.__init__.__kwdefaults__, "lock_timeout_s", patience)
    with contextlib.closing(sqlite3.connect(".fersweep/sweeps.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = _said(request, "pause")
    assert f"process {os.getpid()} holds the database" in said
    return said


@provokes("FILE: disk I/O error")
def _full_disk_under_the_database(request: pytest.FixtureRequest) -> str:
    said = _on_full_disk(request, before="fersweep create small.yaml", command="fersweep create small.yaml")
    assert "hint: the disk is full" in said
    return said


@provokes("cannot write FILE")
def _full_disk_elsewhere(request: pytest.FixtureRequest) -> str:
    _create(request)
    assert request.getfixturevalue("shell")("agent", "--gpus", "none")[0] == 0
    home = Path(".fersweep").absolute()
    command = f"FERSWEEP_HOME='{home}' fersweep report --format csv -o disk/report.csv"
    return _on_full_disk(request, before="true", command=command)


def _on_full_disk(request: pytest.FixtureRequest, *, before: str, command: str) -> str:
    Path("small.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    script = f"{before}\nhead -c 100M /dev/zero > disk/filler 2>/dev/null || true\n{command} && exit 9 || exit 0\n"
    done = on_small_disk(script, size="4M", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    return done.stderr
