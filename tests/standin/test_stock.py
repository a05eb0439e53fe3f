"""Stock `wandb agent` works against the stand-in, unmodified: given WANDB_BASE_URL and WANDB_API_KEY only.

What fersweep uses of wandb beyond this, such as runs, artifacts and reports, is tested with fersweep on top.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.standin.server import StandIn
from tests.support.standin.state import Sweep
from tests.support.standin.stock import PROGRAMS

pytestmark = pytest.mark.stock


def work_off(server: StandIn, program: str, meanwhile: Callable[[Sweep], None] = lambda sweep: None) -> Sweep:
    """Have a stock agent work off a grid of one configuration of a program."""
    grid = {"method": "grid", "parameters": {"lr": {"values": [0.1]}}, "program": str(PROGRAMS / program)}
    sweep = server.create_sweep(grid)
    words = [sys.executable, "-m", "wandb", "agent", f"tester/faces/{sweep.id}"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with Path("agent.log").open("w+b") as log:
        with subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "PATH": path}) as agent:
            meanwhile(sweep)
        assert agent.returncode == 0, Path("agent.log").read_text()
    return sweep


def test_cancelling_a_sweep_ends_the_agent_and_its_run(online: StandIn) -> None:
    def cancel(sweep: Sweep) -> None:
        # Only once its first post is answered is it the agent's business, and not its core's, to stop the run.
        online.wait_for(lambda server: "file_stream" in server.operations(), 120)
        online.set_sweep_state(sweep.id, "CANCELED")

    sweep = work_off(online, "endless.py", cancel)
    (run,) = online.runs.values()
    assert (run.state, run.stopped) == ("failed", True)
    assert list(dict.fromkeys(command["type"] for command in sweep.agents[0].commands)) == ["run", "stop", "exit"]


def test_a_preempted_run_is_handed_out_again(online: StandIn) -> None:
    sweep = work_off(online, "preempted.py")
    (run,) = online.runs.values()
    assert [command["type"] for command in sweep.agents[0].commands] == ["run", "resume", "exit"]
    assert (run.state, [row["loss"] for row in run.history], run.config) == ("finished", [0, 1], {"lr": 0.1})
    assert sweep.state == "FINISHED"
