"""A database that does not answer while an agent is stopped, and a disk that fills up under one."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_sweep.records import TrialState
from fer_sweep.store.engine import Interrupted
from tests.support.agent_stage import Stage
from tests.support.scripted_search import ENDLESS, ScriptedSearch, request
from tests.support.scripted_starter import ScriptedStarter, train_then_wait

REPOSITORY = Path(__file__).resolve().parents[2]


class AwaySearch(ScriptedSearch):
    """From the first epoch on its database is away; Ctrl-C is pressed each time that it is waited for."""

    def report(self, trial_id, epoch, metrics):
        os.kill(os.getpid(), signal.SIGINT)
        raise Interrupted("the database has not answered")

    def finish(self, trial_id, outcome):
        assert outcome.state is TrialState.PREEMPTED
        raise Interrupted("the database has not answered")


def test_ctrl_c_stops_an_agent_whose_database_does_not_answer(tmp_path, caplog):
    stage = Stage(tmp_path / "trials", starter=ScriptedStarter(train_then_wait(1)))
    assert stage.run(AwaySearch([request("0", **ENDLESS)])).interrupted
    notes = "\n".join(stage.view.notes)
    assert "no new trials; 1 running will finish" in notes
    assert "writing checkpoints and stopping" in notes
    assert "trial 0 could not be handed back" in caplog.text
    assert stage.history("0") == [1]


@pytest.mark.process
def test_disk_that_fills_up_under_the_database_damages_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs '{disk}'"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "sh", "-c", mount]).returncode != 0:
        pytest.skip("no file system can be mounted without privileges: user namespaces are switched off")
    program = [sys.executable, "-m", "tests.support.small_disk", str(disk)]
    words = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *program]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    errors = done.stdout.splitlines()
    assert len(errors) == 3
    assert all("sweeps.db: database or disk is full -- " in line and "make room" in line for line in errors)
