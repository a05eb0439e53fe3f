"""The stock agents work against the stand-in server, unmodified.

They poll every five seconds and mostly wait: all run side by side, each on a sweep of its own, against one server.
"""

import sys
from collections.abc import Iterator

import pytest

from tests.support.standin.server import StandIn
from tests.support.standin.state import Run
from tests.support.standin.stock import Stock

RANDOM = {"method": "random", "metric": {"name": "loss"}, "parameters": {"lr": {"min": 0.0, "max": 1.0}}}
TRAIN = """
import wandb
run = wandb.init()
for epoch in range(3):
    run.log({"loss": run.config["lr"] / (epoch + 1)})
run.finish()
"""
FUNCTION = """
import sys
import wandb

def train():
    with wandb.init() as run:
        run.log({"loss": run.config.lr})

wandb.agent(sys.argv[1], function=train, count=2, project="faces")
"""
ENDLESS = """
import signal
import threading
import wandb
run = wandb.init()
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
run.log({"loss": 1})
asked.wait(60)
run.finish(exit_code=1)
"""
PREEMPTED = """
import sys
import wandb
run = wandb.init(resume="allow")
run.log({"loss": run.starting_step})
if not run.resumed:
    run.mark_preempting()
    sys.exit(143)
"""
STOPPED = """
import time
import wandb
run = wandb.init(project="faces", id="stopped")
for epoch in range(3000):
    time.sleep(0.1)
"""
SWEEP = """
program: train.py
project: faces
method: grid
metric: {name: loss, goal: minimize}
parameters:
  lr: {values: [0.1, 0.2]}
  optimizer: {parameters: {name: {value: adam}}}
"""


def posted(server: StandIn, run_id: str) -> bool:
    return any(request.path == f"/files/tester/faces/{run_id}/file_stream" for request in server.requests)


class Agents:
    """What the stock agents did, each on a sweep of its own."""

    def __init__(self, server: StandIn, stock: Stock) -> None:
        for name, code in (("train", TRAIN), ("function", FUNCTION), ("endless", ENDLESS), ("preempted", PREEMPTED)):
            stock.write(f"{name}.py", code)
        stock.write("sweep.yaml", SWEEP)
        self.server = server
        self.created = stock.wandb("sweep", "sweep.yaml")
        (self.grid,) = server.sweeps.values()
        self.random = server.create_sweep(RANDOM)
        self.endless = server.create_sweep({**RANDOM, "program": "endless.py"})
        once = {"lr": {"values": [0.1]}}
        self.preempted = server.create_sweep({"method": "grid", "program": "preempted.py", "parameters": once})
        command = [sys.executable, "-m", "wandb", "agent"]
        processes = [
            stock.start(*command, f"tester/faces/{sweep.id}") for sweep in (self.grid, self.endless, self.preempted)
        ]
        processes.append(stock.start(sys.executable, "function.py", self.random.id))
        # Stopped before it starts: it hears so with its first post, and asks its core again after 15 seconds.
        server.runs["stopped"] = Run("stopped", "tester", "faces", state="pending", stopped=True)
        alone = stock.start(sys.executable, str(stock.write("stopped.py", STOPPED)))
        # Only once its first post is answered is it the agent's business, and not its core's, to stop the run.
        server.wait_for(lambda s: any(posted(s, run.id) for run in s.store.sweep_runs(self.endless)))
        server.set_sweep_state(self.endless.id, "CANCELED")
        self.outputs = [stock.output(process) for process in [*processes, alone]]
        self.codes = [process.returncode for process in [*processes, alone]]


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with StandIn() as server, Stock(server, tmp_path_factory.mktemp("agents")) as stock:
        yield Agents(server, stock)


def test_wandb_sweep_and_wandb_agent_work_off_a_grid(agents: Agents) -> None:
    assert agents.grid.id in agents.created
    assert agents.codes[0] == 0, agents.outputs[0]
    runs = list(agents.server.store.sweep_runs(agents.grid))
    assert [run.config for run in runs] == [{"lr": lr, "optimizer": {"name": "adam"}} for lr in (0.1, 0.2)]
    assert [(run.state, len(run.history)) for run in runs] == [("finished", 3)] * 2
    assert agents.grid.state == "FINISHED"


def test_wandb_agent_with_a_function(agents: Agents) -> None:
    assert agents.codes[3] == 0, agents.outputs[3]
    runs = list(agents.server.store.sweep_runs(agents.random))
    assert [run.state for run in runs[:2]] == ["finished"] * 2
    assert all(run.history[0]["loss"] == run.config["lr"] for run in runs[:2])


def test_cancelling_ends_the_agent_and_its_run(agents: Agents) -> None:
    assert agents.codes[1] == 0, agents.outputs[1]
    (run,) = agents.server.store.sweep_runs(agents.endless)
    assert (run.state, run.stopped) == ("failed", True)
    types = [command["type"] for command in agents.endless.agents[0].commands]
    assert list(dict.fromkeys(types)) == ["run", "stop", "exit"]


def test_a_preempted_run_is_given_out_again(agents: Agents) -> None:
    assert agents.codes[2] == 0, agents.outputs[2]
    (run,) = agents.server.store.sweep_runs(agents.preempted)
    assert [command["type"] for command in agents.preempted.agents[0].commands] == ["run", "resume", "exit"]
    assert (run.state, [row["loss"] for row in run.history]) == ("finished", [0, 1])


def test_the_stop_button_interrupts_a_run_without_an_agent(agents: Agents) -> None:
    run = agents.server.runs["stopped"]
    assert agents.codes[4] != 0, agents.outputs[4]
    assert (run.state, run.exit_code) == ("failed", 255)
