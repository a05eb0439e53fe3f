"""Stock wandb and its agents work against the stand-in, unmodified: given WANDB_BASE_URL and WANDB_API_KEY only.

What fersweep uses of wandb beyond this, such as artifacts and reports, is tested with fersweep on top.
"""

import sys
from collections.abc import Iterator

import pytest
import yaml

from tests.support.standin.server import StandIn
from tests.support.standin.state import Run
from tests.support.standin.stock import PROGRAMS, Stock

pytestmark = pytest.mark.stock

RANDOM = {"method": "random", "metric": {"name": "loss"}, "parameters": {"lr": {"min": 0.0, "max": 1.0}}}
GRID = {
    "program": str(PROGRAMS / "train.py"),
    "project": "faces",
    "method": "grid",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {"lr": {"values": [0.1, 0.2]}, "optimizer": {"parameters": {"name": {"value": "adam"}}}},
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    with StandIn() as server, Stock(server, tmp_path_factory.mktemp("stock")) as stock:
        yield stock


class Agents:
    """What the stock agents did, each on a sweep of its own; they mostly wait, so all run side by side."""

    def __init__(self, server: StandIn, stock: Stock) -> None:
        self.server = server
        (stock.folder / "sweep.yaml").write_text(yaml.safe_dump(GRID))
        self.created = stock.wandb("sweep", "sweep.yaml")
        self.grid = list(server.sweeps.values())[-1]
        self.random = server.create_sweep(RANDOM)
        self.endless = server.create_sweep({**RANDOM, "program": str(PROGRAMS / "endless.py")})
        once = {**GRID, "program": str(PROGRAMS / "preempted.py"), "parameters": {"lr": {"values": [0.1]}}}
        self.preempted = server.create_sweep(once)
        # Stopped before it starts: it hears so with its first post, and asks its core again after 15 seconds.
        server.runs["stopped"] = Run("stopped", "tester", "faces", state="pending", stopped=True)
        agent = [sys.executable, "-m", "wandb", "agent"]
        commands = {
            "grid": [*agent, f"tester/faces/{self.grid.id}"],
            "endless": [*agent, f"tester/faces/{self.endless.id}"],
            "preempted": [*agent, f"tester/faces/{self.preempted.id}"],
            "function": [sys.executable, str(PROGRAMS / "function.py"), self.random.id],
            "stopped": [sys.executable, str(PROGRAMS / "stopped.py")],
        }
        processes = {name: stock.start(*command) for name, command in commands.items()}
        # Only once its first post is answered is it the agent's business, and not its core's, to stop the run.
        server.wait_for(lambda server: any(self.has_posted(run) for run in server.store.sweep_runs(self.endless)), 120)
        server.set_sweep_state(self.endless.id, "CANCELED")
        self.outputs = {name: stock.output(process) for name, process in processes.items()}
        self.codes = {name: process.returncode for name, process in processes.items()}

    def has_posted(self, run: Run) -> bool:
        return any(request.path == f"/files/tester/faces/{run.id}/file_stream" for request in self.server.requests)


@pytest.fixture(scope="module")
def agents(stock: Stock) -> Agents:
    return Agents(stock.server, stock)


def test_wandb_sweep_and_wandb_agent_work_off_a_grid(agents: Agents) -> None:
    assert agents.grid.id in agents.created
    assert agents.codes["grid"] == 0, agents.outputs["grid"]
    runs = list(agents.server.store.sweep_runs(agents.grid))
    assert [run.config for run in runs] == [{"lr": lr, "optimizer": {"name": "adam"}} for lr in (0.1, 0.2)]
    assert [(run.state, len(run.history)) for run in runs] == [("finished", 3)] * 2
    assert agents.grid.state == "FINISHED"


def test_wandb_agent_with_a_function(agents: Agents) -> None:
    assert agents.codes["function"] == 0, agents.outputs["function"]
    runs = list(agents.server.store.sweep_runs(agents.random))[:2]
    assert [(run.state, run.history[0]["loss"]) for run in runs] == [("finished", run.config["lr"]) for run in runs]


def test_cancelling_ends_the_agent_and_its_run(agents: Agents) -> None:
    assert agents.codes["endless"] == 0, agents.outputs["endless"]
    (run,) = agents.server.store.sweep_runs(agents.endless)
    assert (run.state, run.stopped) == ("failed", True)
    types = [command["type"] for command in agents.endless.agents[0].commands]
    assert list(dict.fromkeys(types)) == ["run", "stop", "exit"]


def test_a_preempted_run_is_handed_out_again(agents: Agents) -> None:
    assert agents.codes["preempted"] == 0, agents.outputs["preempted"]
    (run,) = agents.server.store.sweep_runs(agents.preempted)
    assert [command["type"] for command in agents.preempted.agents[0].commands] == ["run", "resume", "exit"]
    assert (run.state, [row["loss"] for row in run.history]) == ("finished", [0, 1])


def test_the_stop_button_interrupts_a_run_without_an_agent(agents: Agents) -> None:
    run = agents.server.runs["stopped"]
    assert agents.codes["stopped"] != 0, agents.outputs["stopped"]
    assert (run.state, run.exit_code) == ("failed", 255)


def test_runs_are_logged_side_by_side_and_resumed_only_if_asked_for(stock: Stock) -> None:
    output = stock.call(sys.executable, str(PROGRAMS / "runs.py"))
    runs = [stock.server.runs[f"r{number}"] for number in range(3)]
    assert output.count("STEP 2 True") == output.count("STEP 0 False") == 1
    assert [run.state for run in runs] == ["finished"] * 3
    fresh = runs[2]
    assert (fresh.display_name, fresh.group, fresh.job_type, fresh.notes) == ("n2", "g", "j", "o")
    assert (fresh.tags, fresh.config) == (["t"], {"a": {"b": 1}})
    assert [row["_step"] for row in runs[0].history] == [0, 1, 2]
    assert [row["loss"] for row in runs[1].history] == [9]
    assert runs[0].summary["best"] == 7
    assert {"config.yaml", "wandb-metadata.json", "wandb-summary.json"} <= set(fresh.files)


def test_a_foreign_entity_and_a_wrong_key_are_refused(stock: Stock) -> None:
    assert "permission denied" in stock.call(sys.executable, str(PROGRAMS / "refused.py"))
    assert "REFUSED" in stock.call(sys.executable, str(PROGRAMS / "refused.py"), WANDB_API_KEY="local-" + "0" * 40)
    assert not [run for run in stock.server.runs.values() if run.entity == "stranger"]


def test_a_sweep_is_paused_and_cancelled(stock: Stock) -> None:
    sweep = stock.server.create_sweep(RANDOM)
    for flag, state in (("--pause", "PAUSED"), ("--cancel", "CANCELED")):
        stock.wandb("sweep", flag, f"tester/faces/{sweep.id}")
        assert sweep.state == state
